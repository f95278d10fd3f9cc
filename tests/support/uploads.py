"""Tars of adapters for the tests of imports, and the two ways between a service and files."""

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest
import tiny
from starlette.testclient import TestClient

from api.service.settings import Settings
from library.base.models import load_config, resolve_base
from library.layout import layout_of
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE, to_peft

URL = "/v1/adapters/import"
TAR = {"Content-Type": "application/x-tar"}

Files = dict[str, bytes]


def tar_of(files: Files, folder: str = "", **options: Any) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", **options) as tar:
        for name, content in files.items():
            add(tar, f"{folder}{name}", content)
    return buffer.getvalue()


def add(tar: tarfile.TarFile, name: str, content: bytes = b"", **fields: Any) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for field, value in fields.items():
        setattr(member, field, value)
    tar.addfile(member, io.BytesIO(content))


def upload(client: TestClient, body: Any, **headers: str) -> Any:
    return client.post(URL, content=body, headers={**TAR, **headers})


def download(client: TestClient, identity: str) -> Files:
    body = client.get(f"/v1/adapters/{identity}").json()
    return {name: client.get(file["url"]).content for name, file in body["files"].items()}


def left(settings: Settings) -> list[str]:
    """What a service has put on the disk beside its databases."""
    return [path.name for path in settings.data.iterdir() if ".sqlite3" not in path.name]


@pytest.fixture
def foreign(tiny_base: Path) -> Files:
    """An adapter of PEFT's for the tiny base, of which nobody says where it is from."""
    layout = layout_of(load_config(resolve_base(str(tiny_base))), ["q_proj", "v_proj"], rank=2)
    files = to_peft(tiny.adapter(layout, seed=5), base_name="tiny")
    return {CONFIG_FILE: files.config_bytes, WEIGHTS_FILE: files.weights}
