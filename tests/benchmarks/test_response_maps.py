"""Response maps: measures by hand, and the script from two libraries to its report."""

import json
import sys
from pathlib import Path
from typing import Any

import lightning
import pytest
import tiny
import torch

from api.cli.main import main
from benchmarks.quality import response_maps
from benchmarks.quality.map_measures import EDGES, agreement, spread_of
from benchmarks.quality.response_maps import Shelf, baselines
from generator.layers.lofa_config import ResponseMapsConfig
from training.data.adapters import LibraryDataModule
from training.objectives.response_maps import LoFAStage1


def test_agreement_is_that_of_the_maps() -> None:
    one, other = torch.tensor([0.1, 0.5, 0.9, 0.2]), torch.tensor([0.9, 0.6, 0.7, 0.1])
    found = agreement(one, other, 0.4)  # maps 0110 and 1110
    assert found["jaccard"] == pytest.approx(2 / 3)
    assert found["cosine"] == pytest.approx(2 / 6**0.5)
    assert found["auroc"] == pytest.approx(2 / 3)  # 0.1 lies below 0.2, the others above
    itself = agreement(one, one, 0.4)
    assert all(value == pytest.approx(1) for value in itself.values())
    assert set(agreement(one, other, 2.0)) == {"jaccard", "cosine", "correlation_of_logs"}


def test_a_histogram_counts_every_entry_once() -> None:
    changes = torch.tensor([[[1e-9, 0.015], [0.5, 1e9]]])
    found = spread_of(changes, 0.3)
    assert sum(found["histogram"]) == pytest.approx(1)
    assert found["histogram"][0] == found["histogram"][len(EDGES)] == 0.25
    assert (found["below_2_percent"], found["active"]) == (0.5, 0.5)


def test_baselines_know_rows_columns_and_weights() -> None:
    """Where |Δw| is a row's size times a column's, rows, columns and 1/|W| say all there is."""
    w = torch.randn(9, 7)
    change = (torch.rand(9, 1) * torch.rand(1, 7))[None] / w.abs()
    found = baselines(change, w, 0.2)["1/|W| and mean rows and columns"].flatten()
    assert torch.equal(found.argsort(), change[0].flatten().argsort())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_script_reports_property_and_predictors(
    small_library: Path, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = ["library", "build", "--base", str(tiny_base), "--steps", "4", "--rank", "4"]
    again = ["--tasks", str(small_library / "tasks"), "--out", str(tmp_path / "two")]
    assert main([*build, *again, "--seed", "1"]) == 0
    tiny.write_tasks(tmp_path / "new", {"cap": "Write in capitals.", "rev": "Reverse the word."})
    assert main([*build, "--tasks", str(tmp_path / "new"), "--out", str(tmp_path / "held")]) == 0
    first = str(small_library / "lib")
    module = LoFAStage1(
        ResponseMapsConfig(width=16, blocks=1, heads=2), base=str(tiny_base), out=f"{tmp_path}/s1"
    )
    lightning.Trainer(
        accelerator="cpu", max_steps=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    ).fit(module, LibraryDataModule(first, steps=1, experts=0))  # fmt: skip
    given: list[Any] = ["--libraries", first, tmp_path / "two", "--held-out", tmp_path / "held"]
    given += ["--checkpoint", tmp_path / "s1", "--base", tiny_base, "--out", tmp_path / "r.json"]
    given += ["--entries", 200]
    monkeypatch.setattr(sys, "argv", ["response_maps", *map(str, given)])
    response_maps.main()
    report = json.loads((tmp_path / "r.json").read_text())
    assert (report["adapters"], report["tasks"], report["left_out_tasks"]) == (6, 3, 2)
    assert report["threshold"] == module.threshold
    for key in ("q_proj_32x32", "v_proj_32x16"):
        pairs = report["reproducibility"][key]
        # Three tasks, each with one pair of its own and one of two tasks, in two layers.
        assert pairs["same task"]["count"] == pairs["other task"]["count"] == 6
        assert len(report["spread"][key]["by_depth"]) == 2
        assert set(report["predictors"][key]) == {
            "mean map", "1/|W|", "1/|W| and mean rows and columns", "stage I", "stage I, shuffled",
        }  # fmt: skip
    shelf = Shelf([first, str(tmp_path / "two")], 2, {"poem"})
    assert shelf.tasks == ["sub", "sum"] * 2 and shelf.others() == [1, 2, 3, 0]
