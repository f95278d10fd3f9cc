"""Training a weight encoder: its closed-form start, its loss, and a run from end to end."""

import gzip
import json
import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import pytest
import tiny
import torch

from api.cli.main import main
from benchmarks.quality.architectures import CASES, DESCRIPTIONS, Run
from index.encoders.weight_start import set_bases, set_projections
from index.encoders.weights import WeightEncoder, WeightEncoderConfig, load_weight_encoder
from library.errors import LayoutMismatch, LorasmithError, MissingPath, TaskFileError, UsageError
from library.layout import layout_of
from training.data import libraries
from training.data.libraries import WeightDataModule
from training.models.weight_encoder import WeightEncoderModule, info_nce

LIBRARY = str(tiny.ROOT / "pretrained" / "library")


def test_the_loss_is_what_it_is_by_hand() -> None:
    one = torch.nn.functional.normalize(torch.tensor([[1.0, 0.2], [0.1, 1.0]]), dim=-1)
    other = torch.nn.functional.normalize(torch.tensor([[1.0, -0.3], [0.5, 1.0]]), dim=-1)
    s = (one @ other.T / 0.5).tolist()
    rows = [math.log(sum(math.exp(x) for x in s[i])) - s[i][i] for i in range(2)]
    columns = [math.log(sum(math.exp(s[j][i]) for j in range(2))) - s[i][i] for i in range(2)]
    found = float(info_nce(one, other, 0.5))
    assert found == pytest.approx((sum(rows) + sum(columns)) / 4, rel=1e-5)


@pytest.mark.parametrize("rank", [3, 6])  # 21 rows of A are fewer than an input is wide, 42 more
def test_bases_are_where_adapters_differ(rank: int) -> None:
    """Dense Σ(G − Ḡ)² has the same leading eigenvectors, and two stocks are as one."""
    layout = layout_of(tiny.config("llama"), ["q_proj"], rank=rank)
    adapter = tiny.adapter(layout, 7, dtype=torch.float64)
    encoder = WeightEncoder(WeightEncoderConfig(8, directions=5, dimension=4), layout).double()
    set_bases(encoder, [adapter[:3], adapter[3:]])
    for position, site in enumerate(layout.sites):
        grams = []
        for row in range(7):
            delta = tiny.deltas(adapter, row)[site.name]
            grams.append(delta.mT @ delta / (delta.mT @ delta).norm())
        every = torch.stack(grams)
        centred = every - every.mean(dim=0)
        values, vectors = torch.linalg.eigh((centred @ centred).sum(dim=0))
        assert values[-5] > values[-6] * (1 + 1e-6)
        wanted, basis = vectors[:, -5:], encoder.bases[position]
        torch.testing.assert_close(basis.mT @ basis, wanted @ wanted.mT)


def test_the_start_is_a_ridge_regression() -> None:
    """Unit ridge and full dimension: embed is the dense solution, in the targets' own space."""
    layout = layout_of(tiny.config("llama"), rank=2)
    encoder = WeightEncoder(WeightEncoderConfig(6, directions=3, dimension=6), layout).double()
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(9, 2, 6, generator=generator, dtype=torch.float64)
    targets = torch.randn(9, 6, generator=generator, dtype=torch.float64)
    present = torch.ones(9, 2, dtype=torch.bool)
    set_projections(encoder, values, present, targets, torch.zeros(6).double(), ridge=0.5)
    x, y = (values - values.mean(0)).flatten(1), targets - targets.mean(0)
    penalty = 0.5 * x.square().sum(dim=1).mean() * torch.eye(12).double()
    dense = torch.nn.functional.normalize(x @ torch.linalg.solve(x.mT @ x + penalty, x.mT @ y))
    texts = torch.nn.functional.normalize(y)
    found = encoder.embed_text(targets) @ encoder.embed(values, present).mT
    torch.testing.assert_close(found.detach(), texts @ dense.mT)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Task files for the shipped library: the definitions in its records, and paraphrases."""
    folder = tmp_path_factory.mktemp("tasks")
    lines = (Path(LIBRARY) / "records.jsonl").read_text().splitlines()
    paraphrases = []
    for record in (json.loads(line)["record"] for line in lines):
        rows: list[dict[str, Any]] = [
            {"kind": "task", "name": record["task"], "definition": record["description"]},
            {"kind": "instance", "id": "a", "input": "x", "output": ["y"]},
        ]
        content = "\n".join(json.dumps(row) for row in rows)
        (folder / f"{record['task']}.jsonl.gz").write_bytes(gzip.compress(content.encode()))
        texts = [f"Please do this: {record['description']}"]
        paraphrases.append(json.dumps({"task": record["task"], "descriptions": texts}))
    (folder / "descriptions.jsonl.gz").write_bytes(gzip.compress("\n".join(paraphrases).encode()))
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_run_by_its_config(tasks: Path, tmp_path: Path) -> None:
    """The command trains on the shipped library; the file it leaves finds what it has seen."""
    out = tmp_path / "checkpoint"
    arguments = [
        "train", "fit", "--config", str(tiny.ROOT / "configs" / "weight_encoder.yaml"),
        "--data.libraries", f"[{LIBRARY}]", "--data.tasks", f"[{tasks}]",
        "--model.out", str(out), "--trainer.default_root_dir", str(tmp_path),
        "--trainer.logger", "false", "--trainer.max_steps", "20", "--data.steps", "20",
        "--model.architecture.directions", "8", "--model.architecture.dimension", "16",
        "--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu",
    ]  # fmt: skip
    assert main(arguments) == 0
    found = load_weight_encoder(out)
    data = WeightDataModule([LIBRARY], [str(tasks)])
    data.setup("fit")
    assert found.info.tasks == sorted(data.task_names)
    assert found.info.training["data"]["set_aside"] and found.info.training["steps"] == 20
    own = data.rows_of(data.task_names)
    weights = found.encode(data.stocks[0].adapters[own])
    texts = found.describe(data.definitions([data.owners[row] for row in own]))
    best = (texts @ weights.mT).argmax(dim=1)
    assert (best == torch.arange(len(own))).float().mean() > 0.9


@pytest.mark.filterwarnings("ignore")
def test_imports_without_a_plan_are_described_by_their_records(
    encoder: Any, tmp_path: Path
) -> None:
    run = Run(CASES["clip"], tmp_path, encoder)
    run.imported()
    data = WeightDataModule([run.library.location], [], set_aside_share=0.0, steps=2)
    sizes = WeightEncoderConfig(directions=8, dimension=16)
    module = WeightEncoderModule(sizes, out=str(tmp_path / "out"), storage="float32")
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, data)
    found = load_weight_encoder(tmp_path / "out")
    assert found.info.base["id"] == run.base and found.info.tasks == ["task0", "task1", "task2"]
    texts = found.describe(encoder.vectors(list(DESCRIPTIONS)))
    assert (texts @ found.encode(data.stocks[0].adapters).mT).argmax(dim=1).tolist() == [0, 1, 2]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_loss_falls(tasks: Path) -> None:
    lightning.seed_everything(0)
    data = WeightDataModule([LIBRARY], [str(tasks)], steps=30, set_aside_share=0.0)
    module = WeightEncoderModule(WeightEncoderConfig(directions=8, dimension=16), lr=1e-2)
    losses: list[float] = []

    class Keep(lightning.Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            losses.append(float(trainer.callback_metrics["train_loss"]))

    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=1, callbacks=[Keep()], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, data)
    assert len(losses) == 30
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ({"id": "/models/the same weights in a folder"}, True),
        ({"sha256": "0" * 64}, False),
        ({"sha256": None}, True),
        ({"id": "/models/other", "sha256": None}, False),
    ],
)
def test_one_base_may_go_by_two_names(
    tasks: Path, changes: dict[str, Any], fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stock, own = libraries.read_stock(LIBRARY)
    owns = {"one": own, "two": replace(own, base={**own.base, **changes})}
    monkeypatch.setattr(libraries, "read_stock", lambda url: (stock, owns[url]))
    data = WeightDataModule(["one", "two"], [str(tasks)])
    with nullcontext() if fits else pytest.raises(LayoutMismatch):
        data.setup("fit")
    assert len(data.stocks) == 2 or not fits


def test_data_that_does_not_fit(tmp_path: Path) -> None:
    def refused(kind: type[LorasmithError], **changes: Any) -> None:
        arguments = {"libraries": [LIBRARY], "tasks": [str(tmp_path)], **changes}
        with pytest.raises(kind):
            WeightDataModule(**arguments).setup("fit")

    refused(MissingPath, libraries=[str(tmp_path / "no")], tasks=[str(tmp_path / "no")])
    refused(TaskFileError)
    refused(UsageError, set_aside_share=1.0)
    (tmp_path / "other.txt").write_text("Say yes.")
    (tmp_path / "other.jsonl").write_text('{"input": "a", "output": "yes"}\n')
    refused(TaskFileError)
