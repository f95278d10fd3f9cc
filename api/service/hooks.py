"""The hooks of a service, and their sources: library, encoder, base models, tasks."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import pretrained
from api.service.settings import Settings
from generator.engine import Engine
from library.base.models import BaseReference
from library.errors import LorasmithError, UnknownName, UsageError
from verification.run import HOOKS, Hook
from verification.scores.sources import SlowHooks
from verification.zk.backend import require_ezkl
from verification.zk.bundle import require_nonce
from verification.zk.hook import Challenge, new_nonce
from verification.zk.report import ZK_HOOK


def hooks_of(settings: Settings, engine: Callable[[], Engine]) -> dict[str, Hook]:
    """Every hook that a job runs when none is named, by name.

    Args:
        engine: gives what has the description encoder and the bases, once it is loaded.
    """
    slow = SlowHooks(
        library=settings.library or str(pretrained.LIBRARY),
        encoder=lambda: engine().resources.encoder(),
        reference=lambda name: configured(settings, name),
        base=lambda reference: engine().resources.model(reference),
        tasks=settings.tasks,
    )
    return {hook.name: hook for hook in (*HOOKS, *slow.hooks())}


def configured(settings: Settings, name: str | None) -> BaseReference | None:
    """The configured base that adapters call by a name, if there is one."""
    for alias in settings.bases:
        with suppress(LorasmithError):  # another base's trouble
            base = settings.base(alias)
            if base.name == name:
                return base
    return None


def require_configured(settings: Settings, name: str) -> BaseReference:
    """The configured base that an adapter is for. Raises UnknownName."""
    base = configured(settings, name)
    if base is None:
        names = ", ".join(settings.bases)
        raise UnknownName(
            f"the adapter is for '{name}', which is not among the base models of this service: "
            f"{names}"
        )
    return base


def drawn_challenge(names: Sequence[str], challenge: Challenge | None) -> dict[str, Any] | None:
    """The challenge of the zk hook, with a nonce in any case. Raises UsageError, MissingExtra."""
    if ZK_HOOK not in names:
        if challenge is not None:
            raise UsageError("zk: it is for the hook zk, which is not among the hooks")
        return None
    require_ezkl()
    challenge = challenge or Challenge(new_nonce())
    require_nonce(challenge.nonce)
    return asdict(challenge)
