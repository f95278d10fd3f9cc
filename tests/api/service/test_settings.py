"""Settings: a flag, a variable and a key of a file are one thing, and the manual lists them all."""

import inspect
import json
import os
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import tiny

from api.cli.main import main
from api.cli.serve import serve_command
from api.service.settings import Settings, load_settings
from library.errors import MissingPath, UsageError
from library.files import data_dir

# Each setting as a flag or a variable has it, and as a TOML file does.
STATED: dict[str, tuple[str, str]] = {
    "host": ("127.0.0.2", '"127.0.0.2"'),
    "port": ("9000", "9000"),
    "allowed_hosts": ("a.example, b.example", '["a.example", "b.example"]'),
    "data": ("elsewhere/data", '"elsewhere/data"'),
    "database": ("postgresql://me@db/lora", '"postgresql://me@db/lora"'),
    "objects": ("s3://bucket/prefix", '"s3://bucket/prefix"'),
    "checkpoints": ('{"lofa": "here"}', '{"lofa" = "here"}'),
    "multi_task": ("docs, tests,", '["docs", "tests"]'),
    "gates": ('{"mine": "runs/gate"}', '{"mine" = "runs/gate"}'),
    "library": ("pretrained/library", '"pretrained/library"'),
    "tasks": ("tasks", '"tasks"'),
    "bases": ('{"two": "hub:a/b", "one": "c/d"}', '{"two" = "hub:a/b", "one" = "c/d"}'),
    "queue_length": ("3", "3"),
    "job_queue_length": ("0", "0"),
    "retry_after": ("9", "9"),
    "quota_bytes": ("1000", "1000"),
    "import_bytes": ("2000", "2_000"),
    "ttl": ("86400", "86_400"),
    "rate": ("60/minute", '"60/minute"'),
    "stop_seconds": ("5", "5"),
    "log_format": ("json", '"json"'),
    "zk_srs": ("kzg.srs", '"kzg.srs"'),
}


@pytest.fixture(autouse=True)
def nothing_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*os.environ]:
        if name.startswith("LORASMITH_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tiny.ROOT)


def served(monkeypatch: pytest.MonkeyPatch, *flags: str) -> Settings:
    """The settings that `lorasmith serve` starts with."""
    seen: list[Settings] = []
    with monkeypatch.context() as patch:
        patch.setattr("api.http.app.run_server", seen.append)
        patch.setenv("LORASMITH_DATA", os.environ.get("LORASMITH_DATA", ""))  # put back after it
        assert main(["serve", *flags]) == 0
    return seen[0]


def config(folder: Path, *lines: str) -> str:
    path = folder / "lorasmith.toml"
    path.write_text("\n".join([*lines, ""]))
    return str(path)


def flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def variable(name: str) -> str:
    return f"LORASMITH_{name.upper()}"


def test_every_setting_is_tested_here() -> None:
    assert {*STATED, "config"} == {*Settings.model_fields}


@pytest.mark.parametrize("name", STATED)
def test_a_flag_a_variable_and_a_key_of_a_file_say_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    text, toml = STATED[name]
    by_flag = getattr(served(monkeypatch, flag(name), text), name)
    monkeypatch.setenv(variable(name), text)
    by_variable = getattr(served(monkeypatch), name)
    monkeypatch.delenv(variable(name))
    file = config(tmp_path, f"{name} = {toml}")
    by_file = getattr(served(monkeypatch, "--config", file), name)
    assert by_flag == by_variable == by_file != getattr(load_settings(), name)
    if isinstance(by_flag, dict):
        assert [*by_flag] == [*by_variable] == [*by_file], "the first base is the default"


def test_a_flag_goes_before_a_variable_and_that_before_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lines = ("port = 1", "retry_after = 1", "queue_length = 1")
    monkeypatch.setenv("LORASMITH_CONFIG", config(tmp_path, *lines))
    monkeypatch.setenv("LORASMITH_RETRY_AFTER", "2")
    monkeypatch.setenv("LORASMITH_QUEUE_LENGTH", "2")
    settings = served(monkeypatch, "--queue-length", "3")
    assert (settings.port, settings.retry_after, settings.queue_length) == (1, 2, 3)
    assert settings.job_queue_length == Settings.model_fields["job_queue_length"].default


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("prot = 1", "there is no setting 'prot'"),
        ('config = "another.toml"', "there is no setting 'config'"),
        ("PORT = 1", "there is no setting 'PORT'"),
        ("port = ", "cannot be read as TOML"),
        ("port = 70000", "setting port: input should be less than or equal to 65535"),
        ('bases = "[1]"', "setting bases: input should be a valid dictionary"),
        ('bases = "{"', "setting bases: it must be a JSON object"),
        ('rate = "often"', "setting rate: a rate is a number"),
        ('database = "sqlite:///x"', "setting database: the database must be a PostgreSQL"),
        ('database = "nothing"', "setting database: the URL of the database cannot be read"),
        ('objects = "s3://me:secret@bucket"', "setting objects: it must be a URL as s3://"),
        ("allowed_hosts = 5", "setting allowed_hosts: input should be"),
        ("allowed_hosts = [5]", "setting allowed_hosts.0: input should be a valid string"),
        ('allowed_hosts = ["a:1"]', "setting allowed_hosts: 'a:1' is not the name of a host"),
    ],
)
def test_what_a_file_states_wrongly_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, message: str
) -> None:
    file = config(tmp_path, line)
    with pytest.raises(UsageError, match=message.replace("[", r"\[")):
        load_settings(config=file)
    assert main(["serve", "--config", file]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_file_that_is_not_there_or_no_text_is_told(tmp_path: Path) -> None:
    with pytest.raises(MissingPath, match=r"no\.toml"):
        load_settings(config=tmp_path / "no.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="cannot be read as TOML"):
        load_settings(config=tmp_path / "binary.toml")


def test_what_else_is_kept_goes_where_the_data_goes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[Path] = []
    monkeypatch.setattr("api.http.app.run_server", lambda settings: seen.append(data_dir()))
    monkeypatch.setenv("LORASMITH_DATA", "")
    assert main(["serve", "--config", config(tmp_path, f"data = {json.dumps(str(tmp_path))}")]) == 0
    assert seen == [tmp_path]


def helps() -> dict[str, str]:
    """The help of each flag of `serve`."""
    hints: dict[str, Any] = get_type_hints(serve_command, include_extras=True)
    names = inspect.signature(serve_command).parameters
    return {name: get_args(hints[name])[1].help for name in names}


def test_the_help_of_a_flag_states_its_default() -> None:
    assert [*helps()] == [*Settings.model_fields]
    for name, text in helps().items():
        default = Settings.model_fields[name].default
        if isinstance(default, int | str):
            assert f"(default: {default})" in text, name


def test_the_manual_has_one_table_of_all_settings() -> None:
    rows = [
        f"| `{flag(name)}` | `{variable(name)}` | `{name}` | {text} |"
        for name, text in helps().items()
    ]
    rows[0] = rows[0].replace("| `config` |", "| |")  # a file names no other
    expected = "\n".join(["| flag | variable | key | |", "| --- | --- | --- | --- |", *rows])
    manual = (tiny.ROOT / "docs" / "production.md").read_text()
    assert expected in manual, f"the table should be:\n{expected}"


def test_a_base_whose_folder_is_gone_is_no_present_one(tmp_path: Path) -> None:
    bases = {"gone": str(tmp_path / "none"), "here": str(tmp_path), "hub": "hub:a/b"}
    present = Settings(data=tmp_path, bases=bases).present_bases()
    assert [base.name for base in present] == ["here", "a/b"]
