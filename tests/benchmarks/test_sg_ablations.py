"""SG-LoRA's ablations on a tiny base: what is measured, and distances against dense ones."""

import gzip
import json
import sys
from pathlib import Path

import pytest
import tiny
import torch
from experts import near_one_start

from benchmarks.quality import sg_ablations
from benchmarks.quality.sg_ablations import paraphrase_spread, sampled
from benchmarks.quality.sg_distances import Distances, squared_distances
from generator.models.sg_lora import SGLoRA, SGLoRAConfig
from index.encoders.descriptions import DEFAULT_ENCODER, DescriptionEncoder
from index.search.retriever import Retriever
from library.base.models import BaseReference
from library.checkpoint import CheckpointInfo, save_checkpoint
from library.layout import layout_of
from library.store.catalogue import records
from library.store.open import open_library
from library.store.snapshots import read_snapshots
from training.data.adapters import LibraryDataModule


@pytest.fixture
def checkpoint_of_it(snapshot_library: str, tmp_path: Path) -> Path:
    """Random weights, and the statistics of the library."""
    data = LibraryDataModule(snapshot_library)
    data.setup("fit")
    module = SGLoRA(SGLoRAConfig(latent=4, hidden=8, top_k=2), data.layout)
    tiny.randomise(module, std=0.05)
    module.prepare(data.adapters)
    save_checkpoint(tmp_path / "sg", module, CheckpointInfo(encoder=DEFAULT_ENCODER, tasks=["sum"]))
    return tmp_path / "sg"


@pytest.mark.slow
def test_a_run_from_end_to_end(
    checkpoint_of_it: Path, snapshot_library: str, small_library: Path, tiny_base: Path,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    texts = {name: tiny.LIBRARY_TASKS[name] for name in ("poem", "sum")}
    tiny.write_tasks(tmp_path / "tasks", texts)
    row = {"task": "sum", "descriptions": ["Give the sum.", "Say what both come to.", "Sum up."]}
    (tmp_path / "descriptions.jsonl.gz").write_bytes(gzip.compress(json.dumps(row).encode()))
    out = tmp_path / "out.json"
    arguments = {
        "--library": snapshot_library, "--checkpoint": checkpoint_of_it, "--oracles":
        snapshot_library, "--tasks": tmp_path / "tasks", "--base": tiny_base, "--limit": 2,
        "--samples": 2, "--modes": "bare", "--out": out,
    }  # fmt: skip
    given = [str(part) for pair in arguments.items() for part in pair]
    monkeypatch.setattr(sys, "argv", ["sg_ablations", *given])
    with torch.inference_mode():
        sg_ablations.main()
    report = json.loads(out.read_text())
    splits = {(r["method"], r["split"]) for r in report["means"]}
    for method in (
        "base", "oracle", "soup", "adapter-soup", "nearest", "top-k", "compose", "sg-lora",
        "sg-lora, sample 2", "sg-lora, N(0, I) 1", "sg-lora, without variance",
        "sg-lora, 1 experts", "top-k, 1 experts", "sg-lora, best of sample",
        "sg-lora, mean of N(0, I)",
    ):  # fmt: skip
        assert {(method, "seen"), (method, "held-out")} <= splits
    assert ("sg-lora, paraphrase 2", "seen") in splits
    assert [row["tasks"] for row in report["paraphrase_spread"]] == [1, 1]
    assert report["refused"]["paraphrases"]["of"] == 3
    assert {row["method"] for row in report["distance_means"]} == {
        "top-k", "sg-lora", "sg-lora, sample", "sg-lora, N(0, I)",
    }  # fmt: skip
    for row in report["distances"]:
        assert row["to_snapshot"] > 0
        assert (row["to_mean"] == 0) == (row["method"] == "top-k")


def test_distances_are_those_of_dense_matrices(
    snapshot_library: str, base: BaseReference, encoder: DescriptionEncoder
) -> None:
    folder = open_library(snapshot_library)
    retriever = Retriever(folder, base, encoder)
    layout = retriever.plan.layout
    record = next(r for r in records(folder) if r["task"] == "poem" and r["variant"] == 0)
    states = read_snapshots(folder, record, layout)
    assert states is not None
    mean, near = near_one_start(layout, 1), states[[1]]
    measured = Distances()
    measured.add(mean, near, task="t", method="m")
    (row,) = measured.measured(retriever)
    assert row["nearest_task"] == "poem" and row["to_snapshot"] < 1e-3
    dense = [tiny.deltas(x.to(dtype=torch.float64)) for x in (near, mean)]
    differences = [dense[0][name] - dense[1][name] for name in dense[0]]
    size = torch.stack([delta.square().sum() for delta in dense[1].values()]).sum().sqrt()
    apart = torch.stack([d.square().sum() for d in differences]).sum().sqrt()
    assert row["to_mean"] == pytest.approx((apart / size).item(), rel=1e-4)


def test_squared_distances_go_row_by_row() -> None:
    layout = layout_of(tiny.config("llama"), rank=2)
    one, other = (tiny.adapter(layout, 3, seed=seed, dtype=torch.float64) for seed in (0, 1))
    found = squared_distances(one, other)
    for i in range(3):
        pairs = [tiny.deltas(adapter, i) for adapter in (one, other)]
        by_hand = sum(float((pairs[0][n] - pairs[1][n]).square().sum()) for n in pairs[0])
        assert found[i].item() == pytest.approx(by_hand)


def test_draws_and_paraphrases_are_summed_up() -> None:
    def row(method: str, score: float) -> dict[str, object]:
        return {"task": "t", "split": "seen", "mode": "bare", "method": method, "rouge_l": score}

    rows = [row("sg-lora, sample 1", 0.2), row("sg-lora, sample 2", 0.4), row("sg-lora", 0.9)]
    found = {r["method"]: r["rouge_l"] for r in sampled(rows, "sample")}
    assert found == {
        "sg-lora, mean of sample": pytest.approx(0.3),
        "sg-lora, best of sample": 0.4,
        "sg-lora, worst of sample": 0.2,
    }
    rows += [row("sg-lora, paraphrase 0", 0.5), row("sg-lora, paraphrase 1", 0.1)]
    (spread,) = paraphrase_spread(rows)
    assert spread["shift"] == pytest.approx(-0.6) and spread["tasks"] == 1
    assert spread["deviation"] == pytest.approx((0.32 / 3) ** 0.5)
