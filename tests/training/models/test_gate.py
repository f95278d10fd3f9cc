"""Training of gates with Lightning over a small library, and what is written."""

import json
from pathlib import Path

import pytest
import torch

from api.cli.main import main
from index.gate.learnt import Gate
from library.checkpoint import load_checkpoint
from library.store.catalogue import records
from library.store.open import open_library
from training.data.gates import GateData


def fit(library: Path, out: Path, *more: str) -> int:
    command = ["train", "fit", "--config", "configs/gate.yaml", "--model.out", str(out)]
    command += ["--data.library", str(library / "lib"), "--data.tasks", f"[{library / 'tasks'}]"]
    command += ["--data.rows_per_step", "6"]
    command += ["--trainer.max_steps", "3", "--trainer.val_check_interval", "3"]
    command += ["--trainer.enable_progress_bar", "false", "--trainer.logger", "false"]
    return main([*command, "--trainer.default_root_dir", str(out.parent), *more])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("system", ["lora-mixer", "x-lora", "smora"])
def test_a_gate_is_trained_and_written(
    system: str, small_library: Path, tiny_base: Path, tmp_path: Path
) -> None:
    more = ["--model.system", system, "--data.base", str(tiny_base)]
    assert fit(small_library, tmp_path / "gate", *more) == 0
    gate = load_checkpoint(tmp_path / "gate", Gate).module
    by_task = {r["task"]: r["id"] for r in records(open_library(str(small_library / "lib")))}
    assert gate.config.adapters == [by_task[task] for task in gate.config.tasks]
    assert sorted(gate.config.tasks) == sorted(by_task)
    assert gate.config.experts == (12 if system == "smora" else 3)
    assert all(bias.any() for bias in gate.bias.values())  # zero before
    about = json.loads((tmp_path / "gate" / "config.json").read_text())
    assert about["training"]["steps"] == 3 and about["kind"] == "gate"


def test_rows_are_owned_by_the_adapters_of_their_tasks(
    small_library: Path, tiny_base: Path
) -> None:
    folder, tasks = str(small_library / "lib"), [str(small_library / "tasks")]
    data = GateData(folder, tasks, str(tiny_base), adapters=2, prompted_share=1.0, steps=4)
    data.setup("fit")
    assert len(data.adapters) == len(data.task_names) == 2
    batches = list(data.train_dataloader())
    again = list(data.train_dataloader())
    assert len(batches) == 4 and torch.equal(batches[2].rows[0].ids, again[2].rows[0].ids)
    for batch in batches:
        for row in batch.asked:
            text = data._rows.tokenizer.decode(row.prompt)
            assert data.tasks[row.owner].definition in text
    assert {row.owner for batch in batches for row in batch.asked} == {0, 1}


def test_an_unknown_system_or_too_few_tasks_are_refused_in_a_sentence(
    small_library: Path, tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["--data.base", str(tiny_base)]
    assert fit(small_library, tmp_path / "g", *base, "--model.system", "moe") != 0
    assert "no gate 'moe'" in capsys.readouterr().err
    assert fit(small_library, tmp_path / "g", *base, "--data.adapters", "1") != 0
    assert "a gate needs two tasks" in capsys.readouterr().err
    assert not (tmp_path / "g").exists()
