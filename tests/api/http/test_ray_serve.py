"""The service under Ray Serve, started for real; where the extra `cluster` is installed."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import tiny
from rest import TASK, bearer, client_of, engine_of, post

from api.service.keys import KeyStore
from api.service.settings import Settings
from library.errors import MissingPath, UsageError

pytestmark = pytest.mark.slow
NAME = "api.http.ray_serve:application"


@pytest.fixture(scope="module", autouse=True)
def ray_serve() -> None:
    pytest.importorskip("ray.serve", reason="needs the extra cluster", exc_type=ImportError)


@pytest.fixture(scope="module")
def settings(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("data")
    return Settings(data=folder, checkpoints={"text-to-lora": checkpoint})


@pytest.fixture(scope="module")
def served(
    settings: Settings, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """`serve run`, with a cluster of its own, and a client with a key."""
    folder = tmp_path_factory.mktemp("ray")
    _, key = KeyStore(settings.data).create("laptop")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = {
        "data": str(settings.data),
        "checkpoints": json.dumps({"text-to-lora": str(checkpoint)}),
    }
    application = {"name": "lorasmith", "import_path": NAME, "args": arguments}
    config = folder / "serve.yaml"  # JSON is YAML
    config.write_text(
        json.dumps({"http_options": {"port": port}, "applications": [application]}), "utf-8"
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "ray.serve.scripts", "run", str(config)],
            cwd=tiny.ROOT,
            env={**os.environ, "PYTHONPATH": str(tiny.ROOT), "RAY_USAGE_STATS_ENABLED": "0"},
            stdout=log,
            stderr=log,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=url, headers=bearer(key), timeout=60) as client:
            wait_for(client, process, folder / "log")
            yield client
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def wait_for(client: httpx.Client, process: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in range(1800):
        assert process.poll() is None, log.read_text()
        try:
            if client.get("/health/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    pytest.fail(log.read_text())


def test_an_adapter_has_the_bytes_that_the_plain_service_gives_it(
    served: httpx.Client, checkpoint: Path, encoder: Any, tmp_path: Path
) -> None:
    plain_settings = Settings(data=tmp_path, checkpoints={"text-to-lora": checkpoint})
    with client_of(plain_settings, engine_of(plain_settings, checkpoint, encoder)) as plain:
        there, here = (post(client, {"description": TASK}) for client in (served, plain))
        assert (there.status_code, here.status_code) == (201, 201)
        assert there.json() == here.json()
        archive = f"{there.headers['location']}/archive"
        assert served.get(archive).content == plain.get(archive).content


def test_it_takes_a_key_and_answers_with_problems(served: httpx.Client) -> None:
    nobody = httpx.get(served.base_url.join("/v1/adapters"))
    assert (nobody.status_code, nobody.json()["code"]) == (401, "unauthenticated")
    assert served.get("/v1/adapters").status_code == 200
    long = post(served, b" " * 3 * 2**20)
    assert (long.status_code, long.json()["code"]) == (413, "body-too-large")


def test_without_keys_or_a_generator_it_does_not_start(tmp_path: Path) -> None:
    from api.http.ray_serve import loaded_service

    settings = Settings(data=tmp_path, checkpoints={"text-to-lora": tmp_path / "none"})
    with pytest.raises(UsageError, match="lorasmith keys create"):
        asyncio.run(loaded_service(settings))
    KeyStore(tmp_path).create("laptop")
    with pytest.raises(MissingPath, match="no checkpoint"):
        asyncio.run(loaded_service(settings))


def test_what_is_no_setting_is_refused() -> None:
    from api.http.ray_serve import application

    with pytest.raises(UsageError, match="nonsense"):
        application({"nonsense": "5"})
