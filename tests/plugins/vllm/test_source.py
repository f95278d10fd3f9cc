"""The plugin asks a real service for the adapters of names, within its bounds."""

import asyncio
import hashlib
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from asked import url  # noqa: F401  (fixture)
from jobs import (  # noqa: F401  (fixtures)
    TASK,
    engine,
    library,
    service,
    settings,
    tasks,
)
from rest import UNKNOWN_ID

from lorasmith_client import Client
from lorasmith_vllm.model_names import number
from lorasmith_vllm.settings import Settings
from lorasmith_vllm.source import FILES, Found, Source

BASE = "tiny"
OTHER = "Add the two numbers."


@pytest.fixture
def client(url: str) -> Client:
    return Client(url)


@pytest.fixture
def limits(url: str, tmp_path: Path) -> Settings:
    return Settings(url, cache=tmp_path / "cache", timeout=30)


def find(source: Source, *names: str, base: str = BASE) -> list[Found | None]:
    async def all_of() -> list[Found | None]:
        return await asyncio.gather(*(source.find(base, name) for name in names))

    return asyncio.run(all_of())


def test_an_adapter_by_its_id_and_by_a_version(client: Client, limits: Settings) -> None:
    made = client.create(TASK)
    client.publish("router", made.id)
    by_id, by_name = find(Source(limits), f"generated/{made.id}", "router@v1")
    assert by_id is not None and by_id == by_name
    assert by_id.path == limits.cache / made.id and by_id.number == number(made.id)
    assert sorted(file.name for file in by_id.path.iterdir()) == sorted(FILES)
    for name in FILES:
        content = (by_id.path / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == made.files[name].sha256
    assert [path.name for path in limits.cache.iterdir() if path.is_dir()] == [made.id]


def test_a_version_keeps_its_meaning(client: Client, limits: Settings) -> None:
    one, two = client.create(TASK), client.create(OTHER)
    suite: Any = [{"input": "a", "output": "b"}]
    for adapter in (one, two):
        client.publish("router", adapter.id, suite)
        client.promote("router")
        (found,) = find(Source(limits), "router@v1")
        assert found is not None and found.path.name == one.id
    assert find(Source(limits), "router", "router@current") == [None, None]


def test_what_was_downloaded_once_is_not_again(
    client: Client, limits: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"generated/{client.create(TASK).id}"
    (first,) = find(Source(limits), name)
    monkeypatch.setattr(Source, "_download", None)
    assert find(Source(limits), name) == [first]


def test_tasks_make_adapters_for_bare_prompts_where_they_are_allowed(
    client: Client, limits: Settings
) -> None:
    name = f"task:{TASK}"
    assert find(Source(limits), name) == [None] and client.list().adapters == []
    (found,) = find(Source(replace(limits, tasks=True)), name)
    (made,) = client.list().adapters
    assert found is not None and found.path.name == made.id
    assert made.usage is not None and made.usage.mode == "bare"
    assert client.create(TASK, mode="bare").id == made.id


@pytest.fixture
def reasons(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Why names were not served, since it was asked last."""
    caplog.set_level(logging.WARNING, "lorasmith_vllm")

    def taken() -> list[str]:
        messages = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return messages

    return taken


def test_what_is_not_there_is_not_served(
    client: Client, limits: Settings, reasons: Callable[[], list[str]]
) -> None:
    source = Source(limits)
    assert find(source, f"generated/{UNKNOWN_ID}", "router@v1") == [None, None]
    assert all("there is no" in reason for reason in reasons()) and not reasons()
    assert find(source, "gpt2", "router") == [None, None]
    assert not reasons()  # they are somebody else's
    gone = replace(limits, url="http://127.0.0.1:9")
    assert find(Source(gone), "router@v1") == [None]
    assert "cannot be reached" in reasons()[0]
    made = client.create(TASK)  # what failed once is looked for again
    client.publish("router", made.id)
    assert find(source, "router@v1") != [None]


def test_another_base_is_refused_unless_it_is_named(
    client: Client, limits: Settings, reasons: Callable[[], list[str]]
) -> None:
    name = f"generated/{client.create(TASK).id}"
    assert find(Source(limits), name, base="/models/tiny") == [None]
    assert "is for tiny, and not for /models/tiny" in reasons()[0]
    assert not limits.cache.exists()
    assert find(Source(replace(limits, base=BASE)), name, base="/models/tiny") != [None]
    tasks = replace(limits, tasks=True)
    assert find(Source(tasks), f"task:{TASK}", base="other") == [None]
    assert "makes no adapters for other" in reasons()[0]


def test_a_damaged_folder_is_not_handed_out(
    client: Client, limits: Settings, reasons: Callable[[], list[str]]
) -> None:
    name = f"generated/{client.create(TASK).id}"
    (found,) = find(Source(limits), name)
    assert found is not None
    weights = found.path / FILES[1]
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert find(Source(limits), name, name) == [None, None], "asked for twice at one time, too"
    assert "damaged" in reasons()[0]
    weights.unlink()
    assert find(Source(limits), name) == [None]
    assert "damaged" in reasons()[-1]
    weights.write_bytes(whole)
    assert find(Source(limits), name) == [found]


def test_bounds(
    client: Client, limits: Settings, reasons: Callable[[], list[str]], monkeypatch: Any
) -> None:
    names = [f"generated/{client.create(text).id}" for text in (TASK, OTHER, "Name it.")]
    full = Source(replace(limits, cache=limits.cache / "small", cache_bytes=100))
    assert find(full, names[0]) == [None] and "100 bytes" in reasons()[0]
    few = Source(replace(limits, adapters=2))
    assert find(few, *names[:2]).count(None) == 0
    assert find(few, *names) == [*find(few, *names[:2]), None]
    assert "2 adapters are served already" in reasons()[0]
    busy = Source(replace(limits, pending=2))
    assert find(busy, *names).count(None) == 1
    assert "2 other names" in reasons()[0]
    assert None not in find(busy, *names[:2])  # afterwards there is room again

    running, most = 0, 0
    fetch = Source._fetch

    async def counted(self: Source, *arguments: Any) -> Found:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.05)
        try:
            return await fetch(self, *arguments)
        finally:
            running -= 1

    monkeypatch.setattr(Source, "_fetch", counted)
    assert None not in find(Source(replace(limits, concurrent=1)), *names) and most == 1
    slow = Source(replace(limits, timeout=0.01))
    assert find(slow, names[0]) == [None] and "more than 0.01 seconds" in reasons()[0]
    assert slow._pending == 0
