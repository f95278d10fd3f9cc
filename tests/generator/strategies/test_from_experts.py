"""SG-LoRA behind the one door: trained by reconstruction, exported, served from its library."""

import json
from pathlib import Path
from typing import Any

import lightning
import pytest
import tiny
import torch
from experts import near_one_start

from api.cli.main import main
from generator.engine import Engine, read_generator, takes_library
from generator.models.sg_lora import SGLoRA, SGLoRAConfig
from generator.request import Query, Request
from generator.resources import Resources
from generator.strategies.base import NothingNear
from index.encoders.descriptions import DEFAULT_ENCODER, DescriptionEncoder
from index.search.retriever import similarities, similarity_weights
from library.base.models import BaseReference, load_config, resolve_base
from library.checkpoint import CHECKPOINT_WEIGHTS, Checkpoint, CheckpointInfo, save_checkpoint
from library.errors import LayoutMismatch, LorasmithError, UsageError
from library.layout import layout_of
from library.peft.read import read_peft
from library.store.open import open_library
from library.tasks.files import Example, read_tasks
from training.data.adapters import LibraryDataModule
from training.evaluation.methods import Asked, parse_methods, proposals
from training.objectives.module import OptimiserConfig
from training.objectives.reconstruction import Reconstruction

ARCHITECTURE = {"latent": 4, "hidden": 16, "code": 4, "top_k": 2, "floor": 0.2}
NEW, FAR = "Multiply the two numbers.", "qwzx plmk vbnt hjgf"
NAME = SGLoRA.kind


def fit(
    library: str, tiny_base: Path, out: Path | None, *, experts: int = 2, steps: int = 40
) -> list[float]:
    """The losses of a training on a library; exported to `out`."""
    lightning.seed_everything(0)
    module = Reconstruction(
        generator=SGLoRA,
        architecture=ARCHITECTURE,
        target="squared_error",
        base=str(tiny_base),
        rank=2,
        optimiser=OptimiserConfig(lr=1e-2),
        out=None if out is None else str(out),
    )
    losses: list[float] = []

    class Keep(lightning.Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            losses.append(float(trainer.callback_metrics["train_loss"]))
            assert trainer.callback_metrics["train_kl"] >= 0

    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=1, callbacks=[Keep()], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, LibraryDataModule(library, steps=steps, snapshots=True, experts=experts))
    return losses


@pytest.fixture(scope="module")
def trained(
    snapshot_library: str, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A checkpoint that was trained on the library with snapshots, by which losses have fallen."""
    folder = tmp_path_factory.mktemp("trained") / NAME
    losses = fit(snapshot_library, tiny_base, folder)
    assert len(losses) == 40 and losses[-1] < 0.8 * losses[0]
    return folder


def engine_of(
    checkpoint: Path, library: str | None, encoder: DescriptionEncoder, *more: Checkpoint[Any]
) -> Engine:
    opened = None if library is None else open_library(library)
    loaded = [read_generator(checkpoint), *more]
    return Engine(loaded, Resources(opened, encoders=[encoder]))


@pytest.fixture(scope="module")
def served(trained: Path, snapshot_library: str, encoder: DescriptionEncoder) -> Engine:
    return engine_of(trained, snapshot_library, encoder)


@pytest.fixture
def untrained(tiny_base: Path, tmp_path: Path) -> Path:
    """A checkpoint with μ* for an answer, of rank 2, with statistics of adapters of another A."""
    layout = layout_of(load_config(resolve_base(str(tiny_base))), rank=2)
    module = SGLoRA(SGLoRAConfig(**{**ARCHITECTURE, "floor": -1.0}), layout)
    module.prepare(near_one_start(layout, 5).to(dtype=torch.float32))
    save_checkpoint(tmp_path / "untrained", module, CheckpointInfo(encoder=DEFAULT_ENCODER))
    return tmp_path / "untrained"


def build(tmp_path: Path, small_library: Path, tiny_base: Path, *more: str) -> str:
    """Another library of the tasks of the small one."""
    given = [*more] if "--tasks" in more else ["--tasks", str(small_library / "tasks"), *more]
    command = ["library", "build", "--base", str(tiny_base), "--steps", "4", *given]
    assert main([*command, "--out", str(tmp_path / "lib")]) == 0
    return str(tmp_path / "lib")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_command_generates_from_a_checkpoint_and_its_library(
    trained: Path, snapshot_library: str, tiny_base: Path, tmp_path: Path, capsys: Any
) -> None:
    own = ["--checkpoint", str(trained), "--base", str(tiny_base), "--library", snapshot_library]
    shas = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1), ("d", 2)):
        out = ["--out", str(tmp_path / name), "--seed", str(seed), "--json"]
        assert main(["generate", NEW, "--generator", NAME, *own, *out]) == 0
        shown = json.loads(capsys.readouterr().out)
        assert shown["generator"] == NAME and shown["rank"] == 2
        shas.append(shown["sha256"])
        assert read_peft(tmp_path / name).layout.rank == 2
    assert shas[0] == shas[1] and len(set(shas)) == 3  # a seed draws, and always the same
    provenance = json.loads((tmp_path / "a" / "provenance.json").read_text())
    assert len(provenance["parents"]) == 2
    out = ["--out", str(tmp_path / "three"), "--samples", "3", "--json"]
    assert main(["generate", NEW, "--generator", NAME, *own, *out]) == 0
    samples = json.loads(capsys.readouterr().out)["samples"]
    assert [sample["sha256"] for sample in samples] == shas[1:]


def test_untrained_it_answers_with_the_weighted_mean_of_the_snapshots(
    untrained: Path, snapshot_library: str, base: BaseReference, encoder: DescriptionEncoder
) -> None:
    loaded = read_generator(untrained)
    data = LibraryDataModule(snapshot_library)
    data.setup("fit")
    loaded.module.prepare(data.adapters)
    engine = Engine([loaded], Resources(open_library(snapshot_library), encoders=[encoder]))
    proposal = engine.propose(NAME, Request(NEW), base)
    near = Query(Request(NEW), base, engine.resources).nearest_experts(2)
    assert proposal.parents == [neighbour.id for neighbour in near]
    weights = similarity_weights(similarities(near))
    means = [engine.resources.retriever(base).moments(n.id)[0] for n in near]
    for i, x in enumerate(proposal.adapter.factors()):
        wanted = sum(w * mean.factors()[i].double() for w, mean in zip(weights, means, strict=True))
        torch.testing.assert_close(x, wanted)


def test_the_task_left_out_is_not_among_the_parents(served: Engine, base: BaseReference) -> None:
    sums = {r["id"] for r in served.resources.retriever(base).records if r["task"] == "sum"}
    request = Request(tiny.LIBRARY_TASKS["sum"])
    assert sums & set(served.propose(NAME, request, base).parents or [])
    left_out = served.propose(NAME, request, base, without="sum").parents
    assert left_out and not sums & set(left_out)


def test_what_nothing_is_near_to_is_refused_and_auto_goes_elsewhere(
    served: Engine, base: BaseReference
) -> None:
    with pytest.raises(NothingNear, match=r"similarity -?0\.\d\d, and 0\.20 is needed"):
        served.propose(NAME, Request(FAR), base)
    assert served.propose("auto", Request(NEW), base).chosen.strategy == NAME
    other = served.propose("auto", Request(FAR), base).chosen
    assert other.strategy == "compose" and "nothing in the library is near enough" in other.reason
    rows = tuple(Example.pair(f"{i}", "x") for i in range(3))
    for text, takes in ((NEW, True), (FAR, False)):
        tried = served.propose("auto", Request(text, examples=rows, refine=0), base).losses
        assert takes == (NAME in [label for label, _ in tried])


def test_an_evaluation_counts_a_refusal_as_no_change(
    served: Engine, base: BaseReference, small_library: Path
) -> None:
    tasks = read_tasks(small_library / "tasks")
    (method,) = parse_methods(f"{NAME}:gibberish")
    assert method.takes_adapters and takes_library(NAME) and not takes_library("text-to-lora")
    found = proposals(served, Asked(method, [FAR, NEW, FAR]), base, tasks)
    assert [p is not None and p.adapter.is_zero() for p in found] == [True, False, True]


@pytest.mark.parametrize(
    ("more", "error", "said"),
    [
        (["--rank", "3"], LayoutMismatch, "rank 3.*the sg-lora checkpoint.*rank 2"),
        (["--rank", "2", "--targets", "q_proj"], LayoutMismatch, "only the second has .*v_proj"),
        (["--rank", "2", "--seed", "1"], LayoutMismatch, "not trained from the A"),
    ],
)
def test_a_library_of_another_layout_rank_or_start_is_refused(
    more: list[str], error: type[LorasmithError], said: str,
    trained: Path, small_library: Path, tiny_base: Path, base: BaseReference,
    encoder: DescriptionEncoder, tmp_path: Path,
) -> None:  # fmt: skip
    library = build(tmp_path, small_library, tiny_base, *more)
    engine = engine_of(trained, library, encoder)
    with pytest.raises(error, match=said):
        engine.propose(NAME, Request(NEW), base)
    summed = engine.propose("auto", Request(NEW), base).chosen
    assert summed.strategy == "compose" and "does not fit" in summed.reason


def test_no_library_another_base_s_and_one_of_one_task_are_refused(
    trained: Path, snapshot_library: str, small_library: Path, tiny_base: Path,
    base: BaseReference, encoder: DescriptionEncoder, tmp_path: Path, capsys: Any,
) -> None:  # fmt: skip
    without = engine_of(trained, None, encoder)
    with pytest.raises(UsageError, match="sg-lora needs a library of adapters, and there is none"):
        without.propose(NAME, Request(NEW), base)
    assert without.strategies[NAME].offer(base) is None
    tiny.model(tiny.config("llama", num_hidden_layers=3)).save_pretrained(tmp_path / "deeper")
    deeper = resolve_base(str(tmp_path / "deeper"))
    with pytest.raises(LayoutMismatch, match=r"base model .*deeper.* the sg-lora checkpoint"):
        engine_of(trained, snapshot_library, encoder).propose(NAME, Request(NEW), deeper)
    # The shipped library is of another base.
    own = ["--checkpoint", str(trained), "--base", str(tiny_base), "--generator", NAME]
    capsys.readouterr()
    assert main(["generate", NEW, *own, "--out", str(tmp_path / "a")]) == 1
    assert "the library" in tiny.one_sentence(capsys.readouterr())
    rows = str(small_library / "tasks" / "sum.jsonl")
    one_task = ["--tasks", rows, "--rank", "2", "--snapshots", "2"]
    alone = build(tmp_path, small_library, tiny_base, *one_task)
    with pytest.raises(UsageError, match="adapters of two tasks or more"):
        engine_of(trained, alone, encoder).propose(NAME, Request(NEW), base)
    # Nor can anything be trained on it.
    with pytest.raises(UsageError, match="holds one task"):
        fit(alone, tiny_base, None, steps=1)
    with pytest.raises(UsageError, match=r"the data give 3 experts, and sg-lora is made for 2"):
        fit(snapshot_library, tiny_base, None, experts=3, steps=1)


def test_the_default_architecture_takes_three_megabytes_on_the_default_base(
    tmp_path: Path,
) -> None:
    layout = layout_of(load_config(resolve_base()), rank=2)
    module = SGLoRA(SGLoRAConfig(), layout)
    save_checkpoint(tmp_path / "c", module, CheckpointInfo(), storage="int8")
    assert (tmp_path / "c" / CHECKPOINT_WEIGHTS).stat().st_size < 3_000_000
    values = sum(p.numel() for p in near_one_start(layout, 1).factors())
    assert values == 115_200
