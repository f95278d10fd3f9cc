"""The hooks of a service, with where they get what they compare with."""

from collections.abc import Callable

from api.commands.common import SHIPPED
from api.settings import Settings
from generator.strategies import Strategies
from library.base import BaseReference
from verification.hooks import HOOKS, Hook
from verification.slow_hooks import SlowHooks, Sources


def hooks_of(settings: Settings, strategies: Callable[[], Strategies]) -> dict[str, Hook]:
    """Every hook that a job runs when none is named, by name.

    Args:
        strategies: gives what has the description encoder and the bases, once it is loaded.
    """
    sources = Sources(
        library=settings.library or SHIPPED,
        encoder=lambda: strategies().encoder,
        reference=lambda name: configured(settings, name),
        base=lambda reference: strategies().base(reference),
        tasks=settings.tasks,
    )
    return {hook.name: hook for hook in (*HOOKS, *SlowHooks(sources).hooks())}


def configured(settings: Settings, name: str | None) -> BaseReference | None:
    """The configured base that adapters call by a name, if there is one."""
    known = (settings.base(given) for given in settings.bases)
    return next((base for base in known if base.name == name), None)
