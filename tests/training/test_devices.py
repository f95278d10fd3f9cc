"""Training on several devices: the same steps, shared among processes, give the same generator."""

import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from teachers import teacher  # noqa: F401  (a fixture)
from words import word_base, write_tasks  # noqa: F401  (a fixture)

from generator.engine import read_generator

STEPS = 3


def fit(base: Path, teacher: Path, tasks: Path, out: Path, *more: str) -> None:
    """`lorasmith train fit` as a command of its own, as Lightning starts it again for a device."""
    words = [
        "train", "fit", "--config", str(tiny.ROOT / "configs" / "text_to_lora_distilled.yaml"),
        "--model.teacher", str(teacher), "--model.base", str(base), "--data.base", str(base),
        "--model.architecture",
        "{latent: 16, head_in: 24, queries: 2, words_dim: 384, dropout: 0.0}",
        "--model.targets", "[q_proj,o_proj]", "--model.rank", "2", "--model.storage", "float32",
        "--data.tasks", f"[{tasks}]", "--data.set_aside_share", "0", "--data.steps", "6",
        "--data.sampling.tasks_per_step", "2", "--trainer.max_steps", str(STEPS),
        "--trainer.callbacks", "[]", "--trainer.logger", "false", "--trainer.accelerator", "cpu",
        "--trainer.limit_val_batches", "0", "--trainer.gradient_clip_val", "null",
        "--trainer.default_root_dir", str(out.parent), "--model.out", str(out), *more,
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "api", *words], cwd=out.parent, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(
    word_base: Path,
    teacher: Path,
    tmp_path: Path,
) -> None:
    tasks = write_tasks(tmp_path / "tasks", {"a": "red", "b": "blue", "c": "sun", "d": "sea"})
    paths = (word_base, teacher, tasks)
    fit(*paths, tmp_path / "one", "--trainer.accumulate_grad_batches", "2")
    fit(*paths, tmp_path / "two", "--trainer.devices", "2", "--trainer.strategy", "ddp")
    fit(*paths, tmp_path / "half")
    one, two, half = (read_generator(tmp_path / name) for name in ("one", "two", "half"))
    assert one.info.training["steps"] == two.info.training["steps"] == STEPS
    theirs, half_of_it = two.module.state_dict(), half.module.state_dict()
    for name, value in one.module.state_dict().items():
        assert (value - theirs[name]).abs().max() < 1e-6, name
    assert any((value - half_of_it[n]).abs().max() > 1e-4 for n, value in theirs.items())
