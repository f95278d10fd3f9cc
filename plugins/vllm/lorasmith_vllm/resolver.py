"""What vLLM asks for an adapter by the name of a model."""

from vllm.lora.request import LoRARequest  # pyright: ignore[reportMissingImports]
from vllm.lora.resolver import LoRAResolver  # pyright: ignore[reportMissingImports]

from lorasmith_vllm.source import Source


class Resolver(LoRAResolver):
    """Adapters of a lorasmith service."""

    def __init__(self, source: Source) -> None:
        self._source = source

    async def resolve_lora(self, base_model_name: str, lora_name: str) -> LoRARequest | None:
        """The adapter of a name, in a folder that stays while vLLM runs; None if there is none."""
        found = await self._source.find(base_model_name, lora_name)
        if found is None:
            return None
        return LoRARequest(lora_name=lora_name, lora_int_id=found.number, lora_path=str(found.path))
