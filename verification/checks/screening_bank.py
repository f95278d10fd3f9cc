"""The reference bank of screening: what clean and poisoned adapters of one recipe look like.

A bank is a small JSON of numbers, no adapter in it. It holds for one base, one set of modules and
one recipe, and it names the adapters that it was made from: its scores mean nothing elsewhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from library.calibration import read_calibration
from library.layout import Layout
from library.peft.read import shape_of

ModuleRow = tuple[str, int, int, int]  # a module's name, in, out, kernel


@dataclass(frozen=True)
class Bank:
    """Numbers of one recipe. Lists run over modules, or over modules times `rank`.

    Attributes:
        name: how findings name the calibration set.
        recipe: the `generator` of provenance that the bank holds for ("oracle:lora").
        base_sha256: of the base's weights.
        modules: name, in, out and kernel of each module.
        rank: how many singular values of a module are looked at.
        clean, poisoned: how many adapters it was made from.
        tasks: the tasks of the clean ones.
        poison: what was planted, in words.
        centre, spread, weight: of log σ; the known-kind score is
            bias + Σ weight·(log σ − centre)/spread.
        known_scores: quantiles 0, 0.01, ... 1 of clean adapters' scores, each given by a fit that
            had not seen the adapter's task.
        profile_centre, profile_spread: median and robust deviation of the norms' profile.
        outlier_scores: quantiles of clean adapters' outlier scores, found the same way.
        limits: by statistic, the 0.5 %, 50 % and 99.5 % quantile of each module.
    """

    name: str
    recipe: str
    base_sha256: str
    modules: tuple[ModuleRow, ...]
    rank: int
    clean: int
    poisoned: int
    tasks: tuple[str, ...]
    poison: str
    bias: float
    centre: Tensor
    spread: Tensor
    weight: Tensor
    known_scores: Tensor
    profile_centre: Tensor
    profile_spread: Tensor
    outlier_scores: Tensor
    limits: Mapping[str, Tensor]

    def threshold(self, scores: Tensor, false_alarms: int) -> float:
        """The score that `false_alarms` in a hundred clean adapters exceed."""
        return float(scores[100 - false_alarms])

    def fits(self, layout: Layout) -> bool:
        """Whether an adapter's modules are the bank's, in any order, at its rank or above."""
        enough = all(site.rank >= self.rank for site in layout.sites)
        return enough and sorted(map(shape_of, layout.sites)) == sorted(self.modules)

    def in_order(self, layout: Layout, values: Tensor) -> Tensor:
        """`[n, sites, ...]` of an adapter that fits, in the order of the bank's modules."""
        positions = (layout.position(row[0]) for row in self.modules)
        return values[:, [group.indices[index] for group, index in positions]]

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Bank":
        """The bank of a file's object. Raises LookupError, TypeError, ValueError if it is none."""
        tensors = [field.name for field in fields(cls) if field.type is Tensor]
        values: dict[str, Any] = data | {name: _numbers(data[name]) for name in tensors}
        values["modules"] = tuple((row[0], *row[1:]) for row in data["modules"])
        values["tasks"] = tuple(data["tasks"])
        values["limits"] = {key: _numbers(rows) for key, rows in data["limits"].items()}
        return cls(**values)


@cache
def shipped_bank() -> Bank:
    """The bank of the default base: recipe lora, rank 8, q_proj and v_proj."""
    return read_calibration(Path(__file__).with_name("screening_bank.json"), Bank.from_dict)


def _numbers(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)
