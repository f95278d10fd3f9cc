"""client/SKILL.md: every command in it is one that works, and its Python runs."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml
from asked import url  # noqa: F401  (fixture)
from jobs import engine, library, service, settings, tasks  # noqa: F401  (fixtures)
from jsonschema import Draft202012Validator
from stored import nothing_made
from typer.main import get_command

import lorasmith_client
from api.cli.main import app
from api.http.app import create_app
from api.service.service import Service
from api.service.settings import Settings

TEXT = (tiny.ROOT / "client" / "SKILL.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", TEXT, re.DOTALL)
SHELL = "".join(text for language, text in BLOCKS if not language).replace("\\\n", "")
LINES = [shlex.split(line) for line in SHELL.splitlines()]
INLINE = [shlex.split(text) for text in re.findall(r"`((?:curl|lorasmith) [^`]+)`", TEXT)]
COMMANDS = LINES + INLINE
VALUES = {"-H", "-d", "-o", "-X", "--data-urlencode"}  # options of curl that take one


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    settings = Settings(data=tmp_path_factory.mktemp("data"))
    return create_app(Service(settings, nothing_made())).openapi()


def asked(words: list[str]) -> tuple[str, str, list[str]]:
    """Method, path and data of a curl command."""
    given: dict[str, list[str]] = {name: [] for name in VALUES}
    rest = iter(words[1:])
    alone = []
    for word in rest:
        if word in VALUES:
            given[word].append(next(rest))
        else:
            alone.append(word)
    (place,) = [word for word in alone if word != "-G"]
    data = given["-d"] + given["--data-urlencode"]
    usual = "POST" if data and "-G" not in alone else "GET"
    return (given["-X"] or [usual])[0], place.removeprefix("$LORASMITH_URL"), data


def test_its_head_says_what_it_is_for() -> None:
    head = yaml.safe_load(TEXT.split("---")[1])
    assert set(head) == {"name", "description"} and head["name"] == "lorasmith"
    assert len(head["description"]) <= 1024 and "Use when" in head["description"]
    assert len(TEXT.splitlines()) <= 120  # a page


def test_commands_and_flags_exist() -> None:
    command: Any = get_command(app)
    ours = [words for words in COMMANDS if words[0] == "lorasmith"]
    assert len(ours) >= 4
    for _, name, *words in ours:
        flags = {flag for option in command.commands[name].params for flag in option.opts}
        assert {word for word in words if word.startswith("-")} <= flags, name


def test_requests_are_documented(document: dict[str, Any]) -> None:
    ours = [asked(words) for words in COMMANDS if words[0] == "curl"]
    assert len(ours) >= 12
    for method, path, data in ours:
        (template,) = [
            t for t in document["paths"] if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", t), path)
        ]
        operation = document["paths"][template][method.lower()]
        if method == "POST" and data:
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            whole = {**schema, "components": document["components"]}
            Draft202012Validator(whole).validate(json.loads(data[0]))
        elif data:
            names = {one["name"] for one in operation["parameters"]}
            assert {one.split("=")[0] for one in data} <= names


def test_bodies_with_a_field_that_does_not_exist_are_noticed(document: dict[str, Any]) -> None:
    schema = {"$ref": "#/components/schemas/AdapterRequest", "components": document["components"]}
    assert not Draft202012Validator(schema).is_valid({"descriptoin": "x"})


def test_what_it_names_in_answers_exists(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    kinds = ("AdapterAnswer", "JobAnswer", "Verification", "UsageBody", "ExpectedBody", "Problem")
    known = {name for kind in kinds for name in schemas[kind]["properties"]}
    fields = re.findall(r"`(usage|report|expected|state|result|error|code|base_model)\b", TEXT)
    assert {*fields} <= known and len({*fields}) == 8
    assert {*re.findall(r"`(?:usage|report)\.(\w+)`", TEXT)} <= known
    for variable in re.findall(r"\$(LORASMITH_\w+)", TEXT):
        assert variable in Path(lorasmith_client.__file__).with_name("connection.py").read_text()


def test_its_python_runs(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LORASMITH_URL", url)
    monkeypatch.chdir(tmp_path)
    code = [text for language, text in BLOCKS if language == "python"]
    names: dict[str, Any] = {}
    exec("".join(code), names)
    names["client"].close()
    assert (tmp_path / "reviews" / "adapter_model.safetensors").is_file()
    assert capsys.readouterr().out.splitlines()[-1] in ("positive", "negative")
