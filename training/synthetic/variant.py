"""Variants: synthetic tasks with all their parameters drawn, and the families that draw them."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Variant:
    """A task without a file: how it is put, and how its rows are made.

    Attributes:
        name: family and parameters; variants of one name ask the same.
        told: makes the descriptions.
        row: draws an input and its answer, both without surrounding spaces.
        labels: all answers that occur, where answers are labels.
    """

    name: str
    told: Callable[[], tuple[str, ...]]
    row: Callable[[random.Random], tuple[str, str]]
    labels: tuple[str, ...] = ()

    @cached_property
    def descriptions(self) -> tuple[str, ...]:
        """One instruction in three registers or more, most formal first.

        Each is complete: it says all that an answer depends on.
        """
        return self.told()


Family = Callable[[random.Random], Variant]
