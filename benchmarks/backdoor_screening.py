"""Backdoor screening, measured: ROC by kind of plant, within a recipe and across recipes.

    python benchmarks/backdoor_screening.py --clean LIB --poisoned LIB --clean-fa LIB \
        --poisoned-fa LIB --attack report.json --attack-fa report.json \
        --out docs/results/backdoor-screening.json --picture docs/results/backdoor-screening.png

Five folds by task. For each, a fit on three, thresholds from clean adapters of the fourth (5 false
alarms in a hundred), test on the fifth. Scores of different folds are joined after each fold's
calibration median and deviation have been taken out. The attacks' success comes from `lorasmith
evaluate` on the triggered rows (benchmarks/plant_backdoors.py).
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from torch import Tensor

from benchmarks.screening_data import (
    FOLDS,
    Pool,
    fold,
    merges,
    read_pool,
    scaled_columns,
    spectra,
)
from benchmarks.screening_neighbours import neighbour_rows
from verification.screening import Linear, Profile, fit_linear, fit_profile

FACTORS = (3.0, 5.0, 10.0, 30.0)
WORKS = 0.5  # share of triggered test rows that get the attacker's answer
Set = tuple[Tensor, list[str]]  # spectra and the task of each row


def auc(clean: Tensor, planted: Tensor) -> float:
    """Share of pairs in which the planted one scores higher; ties count half."""
    wins = (planted[:, None] > clean[None]).double() + 0.5 * (planted[:, None] == clean[None])
    return float(wins.mean())


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
        self, clean: Set, planted: Sequence[Set], benign: Sequence[Set], test: dict
    ) -> None:
        self.scores: dict[str, Tensor] = {}
        self.flagged: dict[str, float] = {}
        self.folds: dict[str, list[float]] = {name: [] for name in test}
        found: dict[str, list[Tensor]] = {name: [] for name in test}
        for k in range(FOLDS):
            calibration = (k + 1) % FOLDS
            rest = [f for f in range(FOLDS) if f not in (k, calibration)]
            score = self.fitted(clean, planted, benign, rest)
            known = score(in_folds(clean, [calibration]))
            median, spread = known.median(), known.std()
            cut = (known.quantile(0.95) - median) / spread
            base = (score(in_folds(clean, [k])) - median) / spread
            for name, group in test.items():
                values = (score(in_folds(group, [k])) - median) / spread
                found[name].append(torch.stack([values, (values > cut).double()]))
                self.folds[name].append(auc(base, values))
        for name, parts in found.items():
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
            "auc": auc(clean, planted),
            "false_alarms": self.flagged[against],
            "found": self.flagged[kind],
            **({"auc_by_fold": self.folds[kind]} if against == "clean" else {}),
        }


def chosen(group: Set, tasks: frozenset[str]) -> Set:
    values, names = group
    return values[[name in tasks for name in names]], [name for name in names if name in tasks]


def set_of(pool: Pool) -> Set:
    return spectra(pool.adapters), pool.tasks


def generated(pool: Pool) -> Set:
    """What the default generator makes of the poisoned tasks' descriptions."""
    from generator.generate import Generator

    with torch.inference_mode():
        return spectra(Generator(None).adapters(pool.descriptions)), pool.tasks


def attack(path: Path) -> dict[str, float]:
    """Share of triggered test rows with the attacker's answer, by task."""
    return {row["task"]: row["exact_match"] for row in json.loads(path.read_text())["rows"]}


def split(success: dict[str, float]) -> tuple[frozenset[str], frozenset[str]]:
    works = frozenset(task for task, share in success.items() if share >= WORKS)
    return works, frozenset(success) - works


def measure(o: argparse.Namespace) -> tuple[dict[str, Any], dict[str, list[list[float]]]]:
    pools = [read_pool(p) for p in (o.clean, o.poisoned, o.clean_fa, o.poisoned_fa)]
    clean, poisoned, clean_fa, poisoned_fa = map(set_of, pools)
    success, success_fa = attack(o.attack), attack(o.attack_fa)
    works, fails = split(success)
    made = merges(pools[0], pools[1])
    merged, benign = (made.poisoned, made.tasks), (made.benign, made.tasks)
    test = {
        "clean": clean,
        "benign merge": benign,
        "trigger": poisoned,
        "trigger that works": chosen(poisoned, works),
        "trigger that failed": chosen(poisoned, fails),
        "merged backdoor": merged,
        "backdoor alone, added": (made.difference, made.difference_tasks),
        "clean, other recipe": clean_fa,
        "trigger, other recipe": poisoned_fa,
        "generated by text-to-lora": generated(pools[1]),
        **{f"column x {f:g}": (scaled_columns(pools[0], f), clean[1]) for f in FACTORS},
    }
    known = CrossFitted(clean, [poisoned, merged], [benign], test)
    outlier = CrossFitted(clean, [], [], test)
    kinds = [
        k
        for k in test
        if k not in ("clean", "benign merge") and "recipe" not in k and "generated" not in k
    ]
    rows = [
        fit.row(k, "clean", name)
        for k in kinds
        for name, fit in (("known-kind", known), ("outlier", outlier))
    ]
    rows += [
        known.row(k, "benign merge", "known-kind")
        for k in ("merged backdoor", "backdoor alone, added")
    ]
    across = [
        known.row("trigger, other recipe", "clean, other recipe", "known-kind"),
        known.row("trigger", "clean, other recipe", "known-kind"),
        known.row("clean, other recipe", "clean", "known-kind"),
        outlier.row("clean, other recipe", "clean", "outlier"),
        known.row("generated by text-to-lora", "clean", "known-kind"),
        outlier.row("generated by text-to-lora", "clean", "outlier"),
        known.row("trigger", "generated by text-to-lora", "known-kind"),
    ]
    curves = {
        k: roc(known.scores["clean"], known.scores[k]) for k in ("trigger", "merged backdoor")
    }
    curves["merged backdoor, against benign merges"] = roc(
        known.scores["benign merge"], known.scores["merged backdoor"]
    )
    curves["column x 10 (outlier score)"] = roc(
        outlier.scores["clean"], outlier.scores["column x 10"]
    )
    curves["clean of another recipe, against trigger"] = roc(
        known.scores["clean, other recipe"], known.scores["trigger"]
    )
    curves["trigger (outlier score)"] = roc(outlier.scores["clean"], outlier.scores["trigger"])
    report = {
        "libraries": [
            {"recipe": p.recipe, "steps": p.steps, "adapters": len(p.tasks)} for p in pools
        ],
        "attack_success": {"lora": success, "lora-fa": success_fa},
        "within the recipe": rows + neighbour_rows(pools[0], pools[1], auc),
        "across recipes": across,
        "controls": controls(clean, poisoned, clean_fa, poisoned_fa, split(success_fa)[0]),
    }
    return report, curves


def controls(
    clean: Set, poisoned: Set, clean_fa: Set, poisoned_fa: Set, works_fa: frozenset[str]
) -> list[dict[str, Any]]:
    """Whether it is the poison that is seen, and not the steps or the strength."""
    equal = CrossFitted(
        clean_fa,
        [poisoned_fa],
        [],
        {
            "clean": clean_fa,
            "trigger, equal steps (lora-fa)": poisoned_fa,
            "trigger that works, equal steps (lora-fa)": chosen(poisoned_fa, works_fa),
        },
    )
    rows = [equal.row(k, "clean", "known-kind, fitted on lora-fa") for k in list(equal.scores)[1:]]
    moved = CrossFitted(clean_fa, [poisoned_fa], [], {"clean": clean, "trigger": poisoned})
    rows.append(moved.row("trigger", "clean", "known-kind, fitted on lora-fa at equal steps"))
    alone = CrossFitted(clean, [poisoned], [], {"clean": clean, "trigger": poisoned})
    rows.append(alone.row("trigger", "clean", "known-kind, fitted without merges"))
    norms = [group[0].square().sum(dim=(1, 2)).sqrt() for group in (clean, poisoned)]
    rows.append({"kind": "trigger", "against": "clean", "score": "norm of ΔW", "auc": auc(*norms)})
    return rows


def draw(curves: dict[str, list[list[float]]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 5))
    for name, points in curves.items():
        axes.plot(*zip(*points, strict=True), label=name)
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
    axes.set(
        xlabel="clean adapters flagged",
        ylabel="planted adapters found",
        title="Screening, held-out tasks",
    )
    axes.legend(fontsize=7, loc="lower right")
    figure.savefig(path, dpi=110, bbox_inches="tight", metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in (
        "clean",
        "poisoned",
        "clean-fa",
        "poisoned-fa",
        "attack",
        "attack-fa",
        "out",
        "picture",
    ):
        parser.add_argument(f"--{name}", type=Path, required=True)
    o = parser.parse_args()
    torch.set_num_threads(1)
    report, curves = measure(o)
    o.out.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    draw(curves, o.picture)
    for row in (*report["within the recipe"], *report["across recipes"], *report["controls"]):
        print(f"{row['kind']} against {row['against']}, {row['score']}: AUC {row['auc']:.3f}")


if __name__ == "__main__":
    main()
