"""Distillation as a run: resumed, its choices, its checkpoint, its recipe, what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import pytest
import tiny
import torch
from distilling import Run, tasks  # noqa: F401  (a fixture)
from teachers import teacher, write_teacher  # noqa: F401  (a fixture)
from torch import Tensor
from words import word_base, write_tasks  # noqa: F401  (a fixture)

from generator.engine import read_generator
from index.encoders.descriptions import DEFAULT_ENCODER
from library.base.models import load_config, resolve_base
from library.checkpoint import CheckpointInfo, save_checkpoint
from library.errors import LayoutMismatch, MissingPath, TaskFileError, UsageError
from library.layout import layout_of
from training.cli import run_lightning
from training.data.tasks import TaskDataModule
from training.objectives.condition_noise import ConditionNoise

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.mark.slow
def test_a_resumed_run_ends_where_an_unbroken_one_does(
    word_base: Path,
    teacher: Path,
    tasks: Path,
    tmp_path: Path,
) -> None:
    settings: dict[str, Any] = {
        "nothing": 0.5, "labels": "teacher", "temperature": 1.0, "max_new_tokens": 3,
        "architecture": {"gate": True}, "gate_penalty": 0.01,
    }  # fmt: skip
    whole = Run(word_base, teacher, tasks, 6, half=tmp_path / "half.ckpt", **settings).fit()
    resumed = Run(word_base, teacher, tasks, 6, **settings).fit(tmp_path / "half.ckpt")
    assert resumed.figures("loss") == pytest.approx(whole.figures("loss")[3:], abs=1e-5)
    after, wanted = resumed.module.state_dict(), whole.module.state_dict()
    for key, value in wanted.items():
        torch.testing.assert_close(after[key], value, atol=1e-6, rtol=1e-5)


@pytest.mark.slow
def test_gate_and_noise_are_for_training_alone(
    word_base: Path,
    teacher: Path,
    tasks: Path,
    tmp_path: Path,
) -> None:
    def run(penalty: float, noise: ConditionNoise = ConditionNoise()) -> Run:
        gate = {"gate": True}
        made = Run(
            word_base, teacher, tasks, 25, architecture=gate, gate_penalty=penalty,
            condition_noise=noise, clip=1.0, out=str(tmp_path / "out"),
        )  # fmt: skip
        return made.fit()

    free, small = run(0.0), run(10.0)
    assert 0 < small.figures("gated_norm")[-1] < 0.5 * free.figures("gated_norm")[-1]
    assert free.figures("gate")[0] == pytest.approx(0.1192, abs=1e-3)
    noise = ConditionNoise(0.3, 0.2)
    noisy = run(0.0, noise)
    assert noisy.figures("loss")[5:] != free.figures("loss")[5:]
    record = read_generator(tmp_path / "out").info.training["settings"]
    assert record["condition_noise"] == {"scale": 0.3, "word_dropout": 0.2}
    batch = noisy.data.transfer_batch_to_device(
        noisy.data.training_steps()[0], torch.device("cpu"), 0
    )
    condition = noisy.module.condition(batch)  # as validation reads it
    assert condition.text is batch.embeddings
    with torch.no_grad():
        calm, *drawn = (
            noisy.module.generator(c) for c in (condition, *map(noise, (condition, condition)))
        )
    one, two, three = (adapter.factors()[-1] for adapter in (calm, *drawn))
    assert not torch.equal(one, two) and not torch.equal(two, three)


class States(lightning.Callback):
    """The generator's state and the margin at every validation."""

    def __init__(self) -> None:
        self.seen: dict[int, tuple[float, dict[str, Tensor]]] = {}

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        state = {k: v.clone() for k, v in pl_module.generator.state_dict().items()}
        self.seen[trainer.global_step] = float(trainer.callback_metrics["val_margin"]), state


@pytest.mark.slow
@pytest.mark.parametrize(("by", "mode"), [("val_margin", "max"), (None, "max")])
def test_the_best_state_by_a_monitored_figure_is_exported(
    word_base: Path,
    teacher: Path,
    tmp_path: Path,
    by: str | None,
    mode: str,
) -> None:
    answers = {"a": "red", "b": "blue", "c": "sun", "d": "sea", "e": "tree", "f": "sky"}
    tasks = write_tasks(tmp_path / "tasks", answers)
    keep = lightning.pytorch.callbacks.ModelCheckpoint(
        tmp_path / "kept", monitor=by, mode=mode, filename="best"
    )
    states = States()
    Run(
        word_base, teacher, tasks, 8, lr=3e-2, aside=0.5, label_weight=0.5, val_every=2,
        callbacks=[states, keep], out=str(tmp_path / "out"),
    ).fit()  # fmt: skip
    assert list(states.seen) == [2, 4, 6, 8]
    best = max(states.seen, key=lambda step: states.seen[step][0]) if by else 8
    exported = read_generator(tmp_path / "out")
    margin, state = states.seen[best]
    assert all(torch.equal(v, state[k]) for k, v in exported.module.state_dict().items())
    chosen = {"by": by, "score": pytest.approx(margin), "step": best}
    assert exported.info.training["chosen"] == (chosen if by else None)
    assert len({margin for margin, _ in states.seen.values()}) == 4


@pytest.mark.slow
def test_a_checkpoint_records_its_teacher_and_whence_it_comes(
    word_base: Path,
    teacher: Path,
    tasks: Path,
    tmp_path: Path,
) -> None:
    first = Run(word_base, teacher, tasks, 1).module.generator
    tiny.randomise(first, std=0.1)
    info = CheckpointInfo({"id": "x", "sha256": None, "source": ""}, DEFAULT_ENCODER, ["seen"])
    save_checkpoint(tmp_path / "start", first, info)
    run = Run(
        word_base, teacher, tasks, 1, lr=0.0, out=str(tmp_path / "out"), nothing=0.5,
        start=str(tmp_path / "start"), label_weight=0.25,
    ).fit()  # fmt: skip
    exported = read_generator(tmp_path / "out")
    for key, value in first.state_dict().items():
        torch.testing.assert_close(exported.module.state_dict()[key], value)
    assert exported.info.tasks == ["a", "b", "read before", "seen"]
    settings = exported.info.training["settings"]
    assert settings["start_digest"] == read_generator(tmp_path / "start").digest
    assert settings["teacher_digest"] == run.module.teacher_digest
    assert (settings["labels"], settings["label_weight"]) == ("given", 0.25)
    assert exported.info.training["objective"] == "Distillation"
    assert exported.info.training["data"]["nothing_share"] == 0.5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_recipe_runs(
    word_base: Path,
    teacher: Path,
    tmp_path: Path,
) -> None:
    tasks = write_tasks(tmp_path / "tasks", {"a": "red", "b": "blue", "c": "sun", "d": "sea"})
    run_lightning([
        "fit", "--config", str(tiny.ROOT / "configs" / "text_to_lora_distilled.yaml"),
        "--model.teacher", str(teacher), "--model.base", str(word_base),
        "--data.base", str(word_base), "--model.out", str(tmp_path / "out"),
        "--model.architecture", "{latent: 16, head_in: 24, queries: 2, words_dim: 384, gate: true}",
        "--model.gate_penalty", "0.01",
        "--model.condition_noise", "{scale: 0.1, word_dropout: 0.1}",
        "--data.tasks", f"[{tasks}]", "--data.set_aside_share", "0.5", "--data.steps", "2",
        "--data.nothing_share", "0.25", "--trainer.max_steps", "2",
        "--trainer.val_check_interval", "1", "--data.sampling.tasks_per_step", "4",
        "--trainer.log_every_n_steps", "1", "--trainer.default_root_dir", str(tmp_path),
        "--trainer.accelerator", "cpu", "--trainer.logger.init_args.save_dir", str(tmp_path),
    ])  # fmt: skip
    record = read_generator(tmp_path / "out").info.training
    assert record["objective"] == "Distillation" and record["steps"] == 2
    assert record["chosen"]["by"] == "val_margin" and record["chosen"]["step"] in (1, 2)
    header = (tmp_path / "lightning_logs/version_0/metrics.csv").read_text().splitlines()[0]
    logged = {"loss", "divergence", "label_loss", "nothing_divergence", "gate", "gated_norm"}
    assert {f"train_{name}" for name in logged} <= set(header.split(","))
    assert {"val_loss", "val_margin", "tokens", "seconds"} <= set(header.split(","))


def test_what_cannot_be_taught(
    word_base: Path,
    teacher: Path,
    tasks: Path,
    tmp_path: Path,
) -> None:
    with pytest.raises(MissingPath, match="no teacher's folder at"):
        Run(word_base, tmp_path / "nowhere", tasks, 1)
    layout = layout_of(load_config(resolve_base(str(word_base))), rank=2)
    foreign = write_teacher(tmp_path / "foreign", "another/base", tiny.adapter(layout))
    deep = tiny.config("llama", num_hidden_layers=3)
    deeper = write_teacher(
        tmp_path / "deeper", str(word_base), tiny.adapter(layout_of(deep, rank=2))
    )
    for folder, said in ((foreign, "is for another/base, not for"), (deeper, "the base's layout")):
        with pytest.raises(LayoutMismatch, match=said) as raised:
            Run(word_base, folder, tasks, 1)
        assert "\n" not in str(raised.value)
    for wrong, said in (
        ({"label_weight": -1.0}, "must not be negative"),
        ({"max_new_tokens": 0}, "at least 1"),
        ({"gate_penalty": 0.1}, "architecture.gate true"),
        ({"neftune_alpha": 5.0}, "neftune_alpha is 0"),
    ):
        with pytest.raises(UsageError, match=said):
            Run(word_base, teacher, tasks, 1, **wrong)
    run = Run(word_base, teacher, tasks, 1)
    with pytest.raises(UsageError, match=r"training\.data\.taught\.TaughtDataModule"):
        run.trainer.fit(run.module, TaskDataModule([str(tasks)], base=str(word_base), steps=1))
    short = replace(run.data.sampling, max_length=4)
    with pytest.raises(TaskFileError, match="max_length"):
        Run(word_base, teacher, tasks, 1, sampling=short).fit()
