"""Samples: adapters for one request that differ in what its generator drew."""

from dataclasses import replace

from generator.engine import draws
from generator.models.base import registered
from generator.request import Request
from library.errors import UsageError

MAX_SAMPLES = 16


def sample_requests(name: str, request: Request, count: int) -> list[Request]:
    """A request, and others with the seeds that follow its own, `count` in all.

    Args:
        name: of the generator.
    Raises UsageError as `require_samples` does, and for seeds beyond the largest.
    """
    require_samples(name, count)
    return [replace(request, seed=request.seed + number) for number in range(count)]


def require_samples(name: str, count: int) -> None:
    """Raise UsageError for a count out of range, or above 1 for a generator that draws nothing."""
    if not 1 <= count <= MAX_SAMPLES:
        raise UsageError(f"samples must be from 1 to {MAX_SAMPLES}, not {count}")
    if count > 1 and not draws(name):
        drawing = " and ".join(other for other in registered() if draws(other))
        raise UsageError(f"{name} draws nothing, so it has no samples; {drawing} have")
