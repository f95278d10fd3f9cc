"""Scores of adapters by fits that never saw their fold of tasks, and the ROC of such scores."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.quality.screening_data import FOLDS, fold
from benchmarks.quality.screening_fits import fit_linear, fit_profile
from benchmarks.quality.thresholds import area_under_curve
from verification.scores.screening import Linear, Profile

Set = tuple[Tensor, list[str]]  # spectra and the task of each row


def roc(clean: Tensor, planted: Tensor) -> list[list[float]]:
    """[false alarms, found] at each threshold."""
    cuts = torch.cat([clean, planted]).unique().flip(0)
    points = [[float((x > cut).double().mean()) for x in (clean, planted)] for cut in cuts]
    return [[0.0, 0.0], *points, [1.0, 1.0]]


def in_folds(group: Set, folds: Sequence[int]) -> Tensor:
    """Spectra of the rows whose task lies in those folds."""
    values, tasks = group
    return values[[row for row, task in enumerate(tasks) if fold(task) in folds]]


class CrossFitted:
    """Scores of every set by fits that saw neither the row's fold nor used it for calibration."""

    def __init__(
        self, clean: Set, planted: Sequence[Set], benign: Sequence[Set], test: Mapping[str, Set]
    ) -> None:
        self.scores: dict[str, Tensor] = {}
        self.flagged: dict[str, float] = {}
        self.folds: dict[str, list[float]] = {name: [] for name in test}
        parts_of: dict[str, list[Tensor]] = {name: [] for name in test}
        for k in range(FOLDS):
            calibration = (k + 1) % FOLDS
            rest = [f for f in range(FOLDS) if f not in (k, calibration)]
            score = self.fitted(clean, planted, benign, rest)
            calibrating = score(in_folds(clean, [calibration]))
            median, spread = calibrating.median(), calibrating.std()
            cut = (calibrating.quantile(0.95) - median) / spread
            base = (score(in_folds(clean, [k])) - median) / spread
            for name, group in test.items():
                values = (score(in_folds(group, [k])) - median) / spread
                parts_of[name].append(torch.stack([values, (values > cut).double()]))
                self.folds[name].append(area_under_curve(values, base))
        for name, parts in parts_of.items():
            self.scores[name], flags = torch.cat(parts, dim=1)
            self.flagged[name] = float(flags.mean())

    def fitted(
        self, clean: Set, planted: Sequence[Set], benign: Sequence[Set], folds: Sequence[int]
    ) -> Linear | Profile:
        if not planted:
            return fit_profile(in_folds(clean, folds))
        good = [in_folds(group, folds) for group in (clean, *benign)]
        return fit_linear(torch.cat(good), torch.cat([in_folds(group, folds) for group in planted]))

    def row(self, kind: str, against: str, score: str) -> dict[str, Any]:
        clean, planted = self.scores[against], self.scores[kind]
        return {
            "kind": kind,
            "against": against,
            "score": score,
            "planted": len(planted),
            "clean": len(clean),
            "auc": area_under_curve(planted, clean),
            "false_alarms": self.flagged[against],
            "found": self.flagged[kind],
            **({"auc_by_fold": self.folds[kind]} if against == "clean" else {}),
        }
