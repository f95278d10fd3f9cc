"""The command line: exit codes, one sentence on stderr, and the same bytes as the library."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from peft import PeftModel

from api.cli.main import main
from api.service.store import LOCAL, Store
from generator.engine import open_engine, read_generator, strategy_names
from generator.request import Request
from library.base.models import load_base, resolve_base
from library.files import data_dir
from library.peft.provenance import PROVENANCE_FILE
from lorasmith.libraries import SHIPPED_LIBRARY

REPOSITORY = Path(__file__).parents[3]

WRONG = [
    ([], 2, "Missing command"),
    (["frobnicate"], 2, "No such command"),
    (["generate", "x"], 2, "Missing option '--out'"),
    (["generate", "x", "--out", "new", "--frob"], 2, "No such option"),
    (["generate", " ", "--out", "new"], 2, "the description is empty"),
    (["generate", "x" * 8193, "--out", "new"], 2, "8,193 characters"),
    (["generate", "\ud800", "--out", "new"], 2, "not valid UTF-8"),
    (["generate", "x", "--out", "new", "--rank", "0"], 2, "rank must be from 1 to 256"),
    (["generate", "x", "--out", "new", "--rank", "many"], 2, "--rank"),
    (["generate", "x", "--out", "new", "--strength", "nan"], 2, "strength must be"),
    (["generate", "x", "--out", "new", "--seed", "-1"], 2, "seed must be"),
    (["generate", "x", "--out", "new", "--profile", "tiny"], 2, "portable or lossless"),
    (["generate", "x", "--out", "new", "--generator", "magic"], 2, "unknown generator 'magic'"),
    (["generate", "x", "--out", "new", "--base", "/no/such/base"], 2, "no base model folder"),
    (["generate", "x", "--out", "new", "--base", "nonsense"], 2, "not a known base model"),
    (["generate", "x", "--out", "new", "--checkpoint", "no"], 2, "no checkpoint folder"),
    (["generate", "x", "--out", "new", "--device", "tpu"], 2, "device must be cpu or cuda"),
    (["generate", "x", "--out", "new", "--examples", "e"], 2, "no file at e"),
    (
        [
            "generate",
            "x",
            "--out",
            "new",
            "--generator",
            "nearest",
            "--examples",
            "e",
            "--refine",
            "0",
        ],
        2,
        "cannot use examples",
    ),
    (["generate", "x", "--out", "new", "--library", "no"], 2, "no library at no"),
    (["generate", "x", "--out", "."], 2, "already exists"),
    (["evaluate", "--tasks", "no", "--methods", "base", "--out", "r"], 2, "no task folder"),
    (["evaluate", "--tasks", ".", "--methods", "best", "--out", "r"], 2, "unknown method 'best'"),
    (["evaluate", "--tasks", ".", "--methods", "base", "--mode", "x", "--out", "r"], 2, "mode"),
    (["tasks", "list", "no"], 2, "no task folder"),
    (["tasks", "list", "."], 1, "holds no task files"),
    (["tasks", "import", ".", "--out", "new"], 2, "give --sni"),
    (["tasks", "import", ".", "--sni", "--out", "."], 2, "already exists"),
    (["tasks", "import", ".", "--sni", "--out", ".", "--overwrite"], 2, "another --out"),
    (["tasks", "import", ".", "--sni", "--out", "new", "--split", "x"], 2, "unknown split 'x'"),
    (["serve", "--host", "0.0.0.0"], 2, "loopback only"),
    (["serve", "--multi-task", "no,."], 2, "there is nothing at no"),
    (["serve", "--port", "70000"], 2, "--port"),
    (["train"], 2, "subcommand"),
    (["train", "fit", "--frob"], 2, "unrecognized arguments"),
]


@pytest.mark.parametrize(("arguments", "code", "words"), WRONG, ids=lambda v: str(v)[:40])
def test_what_is_wrong_is_said_in_one_sentence(
    arguments: list[str],
    code: int,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == code
    assert words in tiny.one_sentence(capsys.readouterr())
    assert list(tmp_path.iterdir()) == []


def test_a_service_does_not_begin_with_a_multi_task_adapter_that_nothing_can_use(
    multi_task: Path, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("LORASMITH_DATA", str(tmp_path / "data"))
    serve = ["serve", "--port", "0", "--multi-task"]
    assert main([*serve, str(tmp_path)]) == 1
    assert f"{tmp_path} holds no adapter" in tiny.one_sentence(capsys.readouterr())
    assert main([*serve, str(multi_task)]) == 1
    told = tiny.one_sentence(capsys.readouterr())
    assert f"{multi_task} is of no use: the multi-task adapter is for {tiny_base}, not for" in told


@pytest.mark.parametrize("content", [b"{}", b"not json", b'{"format": 1}'])
def test_a_foreign_checkpoint_is_refused(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_bytes(content)
    (tmp_path / "model.safetensors").write_bytes(b"")
    out = tmp_path / "out"
    assert main(["generate", "x", "--out", str(out), "--checkpoint", str(tmp_path)]) == 1
    assert "cannot be read" in capsys.readouterr().err
    assert not out.exists()


def test_commands_show_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    tasks = (["tasks", "list"], ["tasks", "check"], ["tasks", "import"])
    for command in (["generate"], ["evaluate"], ["serve"], *tasks):
        assert main([*command, "--help"]) == 0
        assert "Example: lorasmith" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("name", "needs", "said"),
    [
        ("auto", [], "default; needs a description or examples; takes examples with --refine 0"),
        (
            "multi-task",
            ["description"],
            "needs a description; takes examples with --refine 0",
        ),
        (
            "icm-lora",
            ["description", "base"],
            "needs a description, the base model; takes examples with --refine 0; draws by --seed",
        ),
        ("lofa", ["description", "base"], "needs a description, the base model"),
        ("sg-lora", ["description", "library"], "needs a description, a library; draws by --seed"),
        ("compose", ["description", "library"], "needs a description, a library"),
        ("fresh", ["examples"], "needs examples"),
    ],
)
def test_generators_are_listed_with_what_they_need(
    name: str, needs: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generators", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["generators"]}
    assert set(rows) == set(strategy_names()) and rows[name]["needs"] == needs
    assert [name for name, row in rows.items() if row["draws"]] == ["icm-lora", "sg-lora"]
    assert main(["generators"]) == 0
    (line,) = [row for row in capsys.readouterr().out.splitlines() if row.split()[0] == name]
    told, *evidence = line.removeprefix(f"{name:<16}").partition("; trained on ")
    assert told == said and rows[name]["shipped"]
    assert bool(evidence[1]) == (rows[name]["trained_on"] is not None)
    if rows[name]["held_out"]:
        scores = rows[name]["held_out"]
        expected = f"{rows[name]['trained_on']} tasks; ROUGE-L "
        modes = [m for m in ("bare", "prompted") if scores[m] is not None]
        expected += ", ".join(f"{100 * scores[m]:.1f} {m}" for m in modes)
        assert evidence[1].startswith(f"{expected} on {scores['tasks']} others")


def test_the_command_writes_what_the_library_makes(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    description = "Reverse the words of the sentence."
    arguments = ["generate", description, "--out", str(tmp_path / "a"), "--json", "--rank", "4"]
    assert main([*arguments, "--checkpoint", str(checkpoint)]) == 0
    shown = json.loads(capsys.readouterr().out)
    engine = open_engine([read_generator(checkpoint)], SHIPPED_LIBRARY)
    made = engine.generate("auto", Request(description, rank=4), resolve_base())
    chosen = made.summary["chosen"]
    assert chosen["strategy"] == "multi-task" and len(chosen["neighbours"]) == 4
    for name, content in made.files.files.items():
        assert (tmp_path / "a" / name).read_bytes() == content
    assert set(shown.pop("milliseconds")) == {*made.milliseconds}
    assert shown == {**made.summary, "out": str(tmp_path / "a"), "tries": []}
    kept = Store(data_dir(), quota_bytes=0)
    stored, _ = kept.read(LOCAL, made.files.id, PROVENANCE_FILE)
    assert stored == made.files.files[PROVENANCE_FILE]
    assert main([*arguments, "--checkpoint", str(checkpoint)]) == 2  # it exists
    assert main([*arguments, "--checkpoint", str(checkpoint), "--overwrite"]) == 0


def test_an_output_that_cannot_be_written(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    target = tmp_path / "file" / "adapter"
    assert main(["generate", "x", "--out", str(target), "--checkpoint", str(checkpoint)]) == 1
    assert "cannot write" in capsys.readouterr().err


def test_a_base_of_another_layout_is_named(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.model(tiny.config("llama")).save_pretrained(tmp_path / "base")
    arguments = ["generate", "x", "--out", str(tmp_path / "a"), "--base", str(tmp_path / "base")]
    assert main([*arguments, "--checkpoint", str(checkpoint)]) == 1
    error = capsys.readouterr().err
    assert "base model" in error and "text-to-lora checkpoint has layout" in error


@pytest.mark.slow
def test_tries_are_what_peft_answers(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The shipped base, our decoding and PEFT's own loading agree on the adapted answer."""
    text = "Name a colour."
    arguments = ["generate", "Shout.", "--out", str(tmp_path / "a"), "--json", "--try", text]
    assert main([*arguments, "--checkpoint", str(checkpoint)]) == 0
    attempt = json.loads(capsys.readouterr().out)["tries"][0]
    base = load_base(resolve_base())
    inputs = base.tokenizer.apply_chat_template(
        [{"role": "user", "content": f"Shout.\n\n{text}"}],  # both are asked with its usage
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )

    def answer(model) -> str:
        out = model.generate(**inputs, max_new_tokens=64, do_sample=False)
        new = out[0, inputs["input_ids"].shape[1] :]
        return base.tokenizer.decode(new, skip_special_tokens=True).strip()

    assert attempt["base"] == answer(base.model)
    assert attempt["adapted"] == answer(PeftModel.from_pretrained(base.model, tmp_path / "a"))


@pytest.mark.parametrize("name", ["index", "verification", "lorasmith"])
def test_a_foreign_package_that_shadows_ours_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    done = subprocess.run(
        [sys.executable, "-c", "from api import entry; entry()", "tasks", "list", "."],
        env={"PYTHONPATH": f"{tmp_path}:{REPOSITORY}", "PATH": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert f"{tmp_path}/{name}" in done.stderr and done.stderr.count("\n") == 1
