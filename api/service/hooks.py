"""The hooks of a service, and their sources: library, encoder, base models, tasks."""

from collections.abc import Callable
from contextlib import suppress

import pretrained
from api.service.settings import Settings
from generator.engine import Engine
from library.base.models import BaseReference
from library.errors import LorasmithError
from verification.run import HOOKS, Hook
from verification.scores.sources import SlowHooks


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
