"""lorasmith_vllm: a plugin by which vLLM serves the adapters of a lorasmith service by name.

vLLM calls `register` in each of its processes. Importing this imports neither vLLM nor torch.
"""

import logging
import os

from lorasmith_vllm.settings import read_settings

NAME = "lorasmith"
_log = logging.getLogger("lorasmith_vllm")


def register() -> None:
    """Register the resolver with vLLM, once a process; without `LORASMITH_URL` there is none.

    Raises ValueError: a setting is wrong.
    """
    from vllm.lora.resolver import LoRAResolverRegistry  # pyright: ignore[reportMissingImports]

    from lorasmith_vllm.resolver import Resolver
    from lorasmith_vllm.source import Source

    if NAME in LoRAResolverRegistry.get_supported_resolvers():
        return
    settings = read_settings(os.environ)
    if settings is None:
        _log.warning("LORASMITH_URL is not set, so no adapters of lorasmith are served")
        return
    LoRAResolverRegistry.register_resolver(NAME, Resolver(Source(settings)))
