"""The Python client as a distribution of its own."""

import re
import tomllib
from typing import Any

import tiny

import lorasmith_client
from lorasmith_client import ClientError, errors
from lorasmith_client.answers import Usage
from lorasmith_client.methods import Method, Methods


def project(folder: str) -> dict[str, Any]:
    return tomllib.loads((tiny.ROOT / folder / "pyproject.toml").read_text())["project"]


def test_it_has_the_services_version_and_needs_httpx_alone() -> None:
    own = project("client")
    assert own["version"] == project(".")["version"]
    assert own["dependencies"] == ["httpx>=0.28"]


def test_readme_names_every_method_and_error() -> None:
    words = set(re.findall(r"`(\w+)", (tiny.ROOT / "client" / "README.md").read_text()))
    methods = {name for name, value in vars(Methods).items() if isinstance(value, Method)}
    assert methods | {"events"} <= words
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    assert {kind.__name__ for kind in kinds if issubclass(kind, ClientError)} <= words


def test_what_is_exported_exists() -> None:
    assert all(hasattr(lorasmith_client, name) for name in lorasmith_client.__all__)


def test_the_input_goes_where_the_last_mark_stands() -> None:
    usage = Usage("prompted", "Write {input} twice.\n\n{input}!")
    assert usage.prompt("a {input}") == "Write {input} twice.\n\na {input}!"
