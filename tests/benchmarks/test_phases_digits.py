"""The digits by phase: arms start from one denoiser, and the report compares them seed by seed."""

import json
import sys
from pathlib import Path

import pytest
import tiny
import torch

from benchmarks.quality import phases_digits
from benchmarks.quality.digits_denoiser import Settings, batches, errors, read_digits
from benchmarks.quality.phases_digits import Arms, interval_phases, losses_by_level, summary
from library.base.multi_adapter import adapted

ARMS = [
    "no condition", "static, a k-th of the numbers", "static", "k adapters", "continuous",
    "continuous, cut afterwards",
]  # fmt: skip
SMALL = Settings(width=8, depth=1, rank=1, pretraining_steps=1, steps=1, batch=4, rate=0.0, draws=1)


def test_a_level_gets_the_phase_of_the_interval_that_it_lies_in() -> None:
    t = torch.tensor([0.0, 0.2499, 0.25, 0.6, 0.75, 1.0])
    assert interval_phases(t).tolist() == [0.125, 0.125, 0.375, 0.625, 0.875, 0.875]


def test_what_is_known_is_class_and_left_half_and_no_more() -> None:
    digits = read_digits()
    assert digits.images.shape == (1797, 64) and digits.known.shape == (1797, 10 + 32)
    torch.testing.assert_close(digits.known.norm(dim=1), torch.ones(1797))
    left = digits.images.unflatten(1, (8, 8))[:, :, :4].flatten(1)
    assert (torch.cosine_similarity(digits.known[:, 10:], left) > 0.9999).all()
    assert ((digits.known[:, :10] > 0).sum(dim=1) == 1).all()


def test_batches_are_the_same_for_every_arm_and_cover_all_levels() -> None:
    digits = read_digits()
    one, other = (next(batches(digits, 1, 16, seed=5)) for _ in range(2))
    assert torch.equal(one[0].images, other[0].images)
    assert torch.equal(one[1], other[1]) and torch.equal(one[2], other[2])
    assert torch.equal((one[1] * 16).long(), torch.arange(16))


def test_before_training_no_arm_changes_anything() -> None:
    digits = read_digits()
    found = Arms(digits[:20], digits[20:28], SMALL, seed=0).run()
    assert list(found) == ARMS
    assert all(arm["levels"] == found["no condition"]["levels"] for arm in found.values())
    assert [arm["rank"] for arm in found.values()] == [0, 1, 4, 1, 1, 1]
    assert [arm["adapters"] for arm in found.values()] == [0, 1, 1, 4, None, 4]


def test_each_image_meets_its_own_adapter() -> None:
    digits = read_digits()[:3]
    arms = Arms(digits, digits, SMALL, seed=0)
    adapter = tiny.adapter(arms.model.layout(2), 3)
    t, noise = torch.tensor([0.1, 0.5, 0.9]), torch.randn(3, 64)
    with adapted(arms.model, adapter, torch.arange(3)):
        together = errors(arms.model, digits.images, t, noise)
    for i in range(3):
        model = tiny.merged(arms.model, adapter, i)
        alone = errors(model, digits.images[[i]], t[[i]], noise[[i]])
        torch.testing.assert_close(together[[i]], alone)
    bare = errors(arms.model, digits.images, t, noise)
    assert ((together - bare).abs() > 1e-3).all()
    for_all = losses_by_level(arms.model, digits, 1, lambda _: adapter)
    assert len(for_all) == 8 and for_all != arms.run()["no condition"]["levels"]


def test_differences_are_taken_seed_by_seed() -> None:
    seeds = [(1.0, 2.0), (4.0, 3.0)]
    rows = [
        {
            name: {"rank": 1, "adapters": 1, "parameters": 7, "levels": [loss, loss + 1]}
            for name, loss in zip(("static", "k adapters"), losses, strict=True)
        }
        for losses in seeds
    ]
    found = summary(rows)["k adapters"]
    assert found["loss"] == {"mean": 3.0, "sd": pytest.approx(0.5**0.5), "seeds": [2.5, 3.5]}
    assert found["minus_static"]["seeds"] == [1.0, -1.0]
    assert [level["mean"] for level in found["by_level"]] == [2.5, 3.5]


def test_the_command_writes_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "report.json"
    small = ["--seeds", "1", "--steps", "1", "--pretraining-steps", "1", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["phases_digits", *small])
    phases_digits.main()
    report = json.loads(out.read_text())
    assert list(report["arms"]) == ARMS
    assert report["images"] == {"train": 1200, "held_out": 360}
    assert report["settings"]["steps"] == 1
    numbers = {name: arm["rank"] * (arm["adapters"] or 1) for name, arm in report["arms"].items()}
    assert numbers["static"] == numbers["k adapters"] == 8
