"""Progress of long work, as everything that takes long reports it."""

from collections.abc import Callable

Progress = Callable[[int, int], None]  # (units done, units in all)


def no_progress(done: int, total: int) -> None:
    """Progress that nobody watches."""


def part_of(progress: Progress, start: int, total: int) -> Progress:
    """Progress of one part of longer work: `start` units of `total` lie before it."""
    return lambda done, _: progress(start + done, total)


def share_of(progress: Progress, number: int, count: int) -> Progress:
    """Progress of one of `count` parts that are equally long: `number` of them lie before it."""
    return lambda done, total: progress(number * total + done, count * total)
