"""The multi-task baseline: trained by Lightning, an ordinary PEFT folder, one for each mode."""

import json
from pathlib import Path

import pytest
import tiny
import torch
from building import tasks  # noqa: F401  (a fixture)
from peft import PeftModel
from transformers import AutoModelForCausalLM

from api.cli.main import main
from library.errors import UsageError
from library.layout import layout_of
from library.peft.read import read_peft
from training.models.multi_task import MultiTaskLoRA


def train(tasks: Path, base: Path, out: Path, prompted: int) -> Path:
    options = {
        "--config": tiny.ROOT / "configs" / "multi_task.yaml",
        "--data.tasks": f"[{tasks}]",
        "--data.base": base,
        "--data.sampling.prompted_share": prompted,
        "--data.sampling.tasks_per_step": 5,
        "--data.sampling.rows_per_task": 4,
        "--model.base": base,
        "--model.lr": 0.02,
        "--model.out": out,
        "--trainer.max_steps": 30,
        "--trainer.log_every_n_steps": 1,
        "--trainer.default_root_dir": out.parent / "runs",
        "--trainer.logger.init_args.save_dir": out.parent / "runs" / out.name,
    }
    arguments = [str(part) for pair in options.items() for part in pair]
    assert main(["train", "fit", *arguments]) == 0
    return out


@pytest.fixture(scope="module")
def trained(
    tasks: Path,
    tiny_base: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    folder = tmp_path_factory.mktemp("multi")
    train(tasks, tiny_base, folder / "bare", 0)
    train(tasks, tiny_base, folder / "prompted", 1)
    return folder


def test_it_learns_and_peft_loads_it(trained: Path, tiny_base: Path) -> None:
    (metrics,) = trained.glob("runs/bare/**/metrics.csv")
    lines = metrics.read_text().splitlines()
    column = lines[0].split(",").index("train_loss")
    losses = [float(line.split(",")[column]) for line in lines[1:] if line.split(",")[column]]
    assert losses[-1] < losses[0] - 0.5
    base = AutoModelForCausalLM.from_pretrained(tiny_base)
    adapter = read_peft(trained / "bare", layout_of(base.config))
    ids = tiny.tokens(2, 6)
    expected = tiny.merged(base, adapter)(input_ids=ids).logits
    model = PeftModel.from_pretrained(base, str(trained / "bare"))
    torch.testing.assert_close(model(input_ids=ids).logits, expected, atol=1e-4, rtol=0)


def test_each_mode_is_asked_under_its_own_adapter(
    trained: Path,
    tasks: Path,
    tiny_base: Path,
    tmp_path: Path,
) -> None:
    def rows(name: str, multi_task: Path) -> dict[tuple[str, str], float]:
        out = tmp_path / f"{name}.json"
        arguments = ["--tasks", str(tasks), "--base", str(tiny_base), "--methods", "multi-task",
                     "--mode", "bare,prompted", "--out", str(out), "--limit", "2",
                     "--multi-task", str(multi_task)]  # fmt: skip
        assert main(["evaluate", *arguments]) == 0
        found = json.loads(out.read_text())["rows"]
        return {(row["task"], row["mode"]): row["rouge_l"] for row in found}

    both = rows("both", trained)
    alone = {mode: rows(mode, trained / mode) for mode in ("bare", "prompted")}
    assert len(both) == 4
    assert all(alone[key[1]][key] == score for key, score in both.items())
    assert alone["bare"] != alone["prompted"]


def test_the_shipped_one_is_for_its_own_base(tasks: Path, tiny_base: Path, tmp_path: Path) -> None:
    arguments = ["--tasks", str(tasks), "--base", str(tiny_base), "--methods", "multi-task"]
    assert main(["evaluate", *arguments, "--out", str(tmp_path / "x.json")]) == 1


def test_one_of_another_base_is_refused(
    trained: Path, tasks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.write_base(tmp_path / "other", end=1.0)
    arguments = ["--tasks", str(tasks), "--base", str(tmp_path / "other"),
                 "--methods", "base,multi-task", "--multi-task", str(trained),
                 "--out", str(tmp_path / "x.json")]  # fmt: skip
    assert main(["evaluate", *arguments]) == 1
    assert "the multi-task adapter is for" in capsys.readouterr().err
    assert not (tmp_path / "x.json").exists()


@pytest.mark.parametrize("recipe", ["dora", "share-lora"])
def test_a_recipe_of_another_form_is_refused(recipe: str) -> None:
    with pytest.raises(UsageError, match=f"lora-plus, not '{recipe}'"):
        MultiTaskLoRA(recipe=recipe)
