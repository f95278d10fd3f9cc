"""The whole way on the offline default: tasks, training, adapter, answers, PEFT, REST, scores.

Two tasks whose answer is one word are enough for a few steps on a CPU to teach the base to obey.
"""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from rest import LOCALHOST
from starlette.testclient import TestClient

import pretrained
from api.cli.main import main
from api.http.app import create_app
from api.service.service import Service
from api.service.settings import Settings
from generator.engine import open_engine, read_generator
from library.base.models import load_base, resolve_base
from library.base.multi_adapter import adapted
from library.peft.read import read_peft

WORDS = {"banana": "Whatever is said, answer with the word banana.", "zebra": "Always say zebra."}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("e2e") / "tasks"
    folder.mkdir()
    for word, description in WORDS.items():
        rows = [json.dumps({"input": f"Number {i}?", "output": word}) for i in range(66)]
        (folder / f"{word}.jsonl").write_text("\n".join(rows))
        (folder / f"{word}.txt").write_text(description)
    return folder


@pytest.fixture(scope="module")
def trained(tasks: Path) -> Path:
    """A generator trained for a few steps by the command, with the shipped configuration."""
    out = tasks.parent / "checkpoint"
    runs = str(tasks.parent / "runs")
    arguments = [
        "train", "fit", "--config", "configs/text_to_lora.yaml",
        "--data.tasks", f"[{tasks}]", "--data.steps", "36", "--data.sampling.tasks_per_step", "2",
        "--data.sampling.rows_per_task", "1", "--data.sampling.prompted_share", "0",
        "--trainer.max_steps", "36", "--trainer.val_check_interval", "36",
        "--trainer.enable_progress_bar", "false", "--trainer.default_root_dir", runs,
        "--trainer.logger.init_args.save_dir", runs, "--trainer.accelerator", "cpu",
        "--model.out", str(out),
    ]  # fmt: skip
    assert main(arguments) == 0
    return out


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_description_becomes_an_adapter_that_the_base_obeys(
    trained: Path, tasks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    # Bare: the adapter has to carry the task.
    out, arguments = tmp_path / "banana", ["--mode", "bare", "--checkpoint", str(trained)]
    asked = ["generate", WORDS["banana"], "--out", str(out), "--json", "--try", "Number 99?"]
    assert main([*asked, *arguments]) == 0
    made = json.loads(capsys.readouterr().out)
    answers = made["tries"][0]
    assert "banana" not in answers["base"]
    assert answers["adapted"] == "banana"

    # Another description gives another adapter: it listens.
    zebra = ["generate", WORDS["zebra"], "--out", str(tmp_path / "z"), "--json", "--try", "Hi"]
    assert main([*zebra, *arguments]) == 0
    assert json.loads(capsys.readouterr().out)["tries"][0]["adapted"] == "zebra"

    # PEFT reads the folder as we do.
    base = load_base(resolve_base())
    ids = base.tokenizer("The quick brown fox", return_tensors="pt")["input_ids"]
    stored = read_peft(out, read_generator(trained).module.layout)
    with torch.no_grad():
        with adapted(base.model, stored, torch.tensor([0])):
            ours = base.model(ids).logits
        theirs = PeftModel.from_pretrained(base.model, out)(ids).logits
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)

    # REST gives the same bytes.
    settings = Settings(data=tmp_path / "data", checkpoints={"text-to-lora": trained})
    engine = open_engine([read_generator(trained)], str(pretrained.folder("library")))
    with TestClient(create_app(Service(settings, engine)), LOCALHOST) as client:
        answer = client.post("/v1/adapters", json={"description": WORDS["banana"], "mode": "bare"})
    assert answer.status_code == 201
    assert (answer.json()["id"], answer.json()["sha256"]) == (made["id"], made["sha256"])

    # And the evaluation sees what was learned.
    report = tmp_path / "report.json"
    measured = ["evaluate", "--tasks", str(tasks), "--methods", "text-to-lora", "--out"]
    assert main([*measured, str(report), *arguments]) == 0
    means = json.loads(report.read_text())["means"]
    assert [mean["split"] for mean in means] == ["seen"]
    assert means[0]["exact_match"] > 0.9
