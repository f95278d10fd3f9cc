"""Training the merge predictor: pairs, the loss through the base, the checkpoint."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from api.cli.main import main
from index.merge.lora_rar import MergePredictor, MergePredictorConfig, load_predictor
from index.merge.pair_features import FEATURES, pair_features
from library.adapter import Adapter
from library.errors import TaskFileError
from library.layout import layout_of
from training.data.pairs import PairDataModule

NAMES = {name: f"Do {name}." for name in ("ash", "elm", "fir", "oak", "yew", "box", "bay", "fig")}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    """Eight tasks and a library of their adapters."""
    folder = tmp_path_factory.mktemp("pairs")
    tasks = folder / "tasks"
    tiny.write_tasks(tasks, NAMES)
    build = ["library", "build", "--tasks", str(tasks), "--base", str(tiny_base), "--lr", "0.005"]
    assert main([*build, "--out", str(folder / "lib"), "--steps", "6", "--rank", "2"]) == 0
    return folder


def data(place: Path, base: Path, **settings: Any) -> PairDataModule:
    made = PairDataModule(
        str(place / "lib"), [str(place / "tasks")], base=str(base), set_aside_share=0.4, **settings
    )
    made.setup("fit")
    return made


def test_steps_are_a_function_of_the_seed_and_pairs_do_not_mix(
    place: Path, tiny_base: Path
) -> None:
    one, again = data(place, tiny_base), data(place, tiny_base)
    names = ({m.task.name for m in one.training}, {m.task.name for m in one.held_back})
    assert not names[0] & names[1] and names[0] | names[1] == set(NAMES)
    assert one.record["set_aside"] == sorted(names[1]) == again.record["set_aside"]
    first, second = (list(m.train_dataloader())[3] for m in (one, again))
    for ours, theirs in zip(first.rows, second.rows, strict=True):
        assert torch.equal(ours.ids, theirs.ids) and torch.equal(ours.rows, theirs.rows)
    assert sum(len(group.ids) for group in first.rows) == 4 * 2 * 2
    for member in (pair[side] for pair in one.held_out_pairs() for side in (0, 1)):
        assert member.task.name in names[1]
    with pytest.raises(TaskFileError, match="two more set aside"):
        PairDataModule(str(place / "lib"), [str(place / "tasks" / "ash.jsonl")]).setup("fit")


def test_training_lowers_the_loss_and_writes_a_checkpoint(
    place: Path, tiny_base: Path, tmp_path: Path
) -> None:
    options = {
        "--config": tiny.ROOT / "configs" / "lora_rar.yaml",
        "--data.library": place / "lib",
        "--data.tasks": f"[{place / 'tasks'}]",
        "--data.base": tiny_base,
        "--data.set_aside_share": 0.4,
        "--data.steps": 40,
        "--model.lr": 0.005,
        "--model.out": tmp_path / "checkpoint",
        "--trainer.max_steps": 40,
        "--trainer.val_check_interval": 40,
        "--trainer.log_every_n_steps": 1,
        "--trainer.default_root_dir": tmp_path,
        "--trainer.logger.init_args.save_dir": tmp_path / "logs",
    }
    assert main(["train", "fit", *(str(part) for pair in options.items() for part in pair)]) == 0
    (metrics,) = tmp_path.glob("logs/**/metrics.csv")
    rows = list(csv.DictReader(metrics.open()))
    (validated,) = (row for row in rows if row["val_loss"])
    assert float(validated["val_loss"]) < float(validated["val_mean"])
    loaded = load_predictor(tmp_path / "checkpoint")
    assert loaded.training["steps"] == 40
    config = json.loads((tmp_path / "checkpoint" / "config.json").read_text())
    assert config["training"]["data"]["base"]["id"] == str(tiny_base)
    assert any(parameter.abs().max() > 0 for parameter in loaded.module.head.parameters())


def test_features_are_finite_for_zero_adapters_and_swap_with_the_pair() -> None:
    layout = layout_of(tiny.config("llama"), rank=3)
    one, nothing = tiny.adapter(layout, 2), tiny.adapter(layout, 2).scaled(0.0)
    for pair in ((one, nothing), (nothing, one), (nothing, nothing)):
        assert pair_features(*pair).isfinite().all()
    same = pair_features(one, one)
    assert same.shape == (2, len(layout.sites), FEATURES)
    torch.testing.assert_close(same[..., 0], torch.zeros_like(same[..., 0]))
    torch.testing.assert_close(same[..., 1], torch.ones_like(same[..., 1]))
    network = MergePredictor(MergePredictorConfig(8))
    tiny.randomise(network)
    other: Adapter = tiny.adapter(layout.with_rank(2), 2, seed=9)
    torch.testing.assert_close(network(one, other), network(other, one).flip(0))
