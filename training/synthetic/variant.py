"""Variants: synthetic tasks with all their parameters drawn, and the families that draw them."""

import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Variant:
    """A task without a file: how it is put, and how its rows are made.

    Attributes:
        name: family and parameters; variants of one name ask the same.
        descriptions: one instruction in three registers or more, most formal first. Each is
            complete: it says all that an answer depends on.
        row: draws an input and its answer, both without surrounding spaces.
        labels: all answers that occur, where answers are labels.
    """

    name: str
    descriptions: tuple[str, ...]
    row: Callable[[random.Random], tuple[str, str]]
    labels: tuple[str, ...] = ()


Family = Callable[[random.Random], Variant]
