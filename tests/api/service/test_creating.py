"""Equal requests, at one time or one after another, are computed once; the answers are equal."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import pytest
from rest import LOCALHOST, TASK, client, engine, post, settings  # noqa: F401  (fixtures)
from starlette.testclient import TestClient

from api.errors import Overloaded
from api.http.app import create_app
from api.service.service import Service
from api.service.settings import Settings
from api.service.single_flight import SingleFlight
from generator.engine import Engine
from library.peft.write import WEIGHTS_FILE


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each description was computed."""
    counts, generate = Counter[str](), Engine.generate

    def counting(self: Engine, name: str, request: Any, *others: Any, **named: Any) -> Any:
        counts[request.description] += 1
        return generate(self, name, request, *others, **named)

    monkeypatch.setattr(Engine, "generate", counting)
    return counts


def test_fifty_equal_requests_at_once_are_computed_once(
    settings: Settings, engine: Engine, computed: Counter[str]
) -> None:
    service = Service(settings.model_copy(update={"queue_length": 0}), engine)
    with TestClient(create_app(service), LOCALHOST) as client, ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: post(client, {"description": TASK}), range(50)))
    assert sorted(answer.status_code for answer in answers) == [200] * 49 + [201]
    assert len({answer.content for answer in answers}) == 1
    assert computed == {TASK: 1}


def test_a_request_that_came_before_is_answered_from_the_store(
    client: TestClient, computed: Counter[str]
) -> None:
    first = post(client, {"description": TASK})
    again = post(client, {"description": f"  {TASK} "})  # the same in its normal form
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.content == first.content
    raw = post(client, {"description": TASK}, Accept="application/octet-stream")
    assert raw.content == client.get(f"{first.headers['location']}/files/{WEIGHTS_FILE}").content
    assert "server-timing" in first.headers and "server-timing" not in again.headers
    assert computed == {TASK: 1}


@pytest.mark.parametrize(
    "other",
    [{"seed": 1}, {"rank": 2}, {"strength": 2.0}, {"profile": "lossless"}, {"mode": "bare"}],
)
def test_a_request_that_differs_is_another(
    client: TestClient, computed: Counter[str], other: dict[str, Any]
) -> None:
    post(client, {"description": TASK})
    post(client, {"description": TASK, **other})
    assert computed == {TASK: 2}


@pytest.mark.parametrize("how", ["deleted", "changed by hand"])
def test_what_is_gone_is_computed_again(
    client: TestClient, settings: Settings, computed: Counter[str], how: str
) -> None:
    first = post(client, {"description": TASK})
    if how == "deleted":
        client.delete(first.headers["location"])
    else:
        (settings.data / "adapters" / first.json()["id"] / WEIGHTS_FILE).write_bytes(b"")
    again = post(client, {"description": TASK})
    assert (again.status_code, again.content) == (201, first.content)
    assert computed == {TASK: 2}


def test_another_key_has_an_adapter_of_its_own(
    settings: Settings, engine: Engine, computed: Counter[str]
) -> None:
    service = Service(settings, engine)
    keys = [service.keys.create(name)[1] for name in ("ann", "ben")]
    with TestClient(create_app(service), LOCALHOST) as client:
        for key in keys:
            answer = post(client, {"description": TASK}, Authorization=f"Bearer {key}")
            assert answer.status_code == 201
    assert computed == {TASK: 2}


def test_who_waits_has_the_error_too_and_may_try_again() -> None:
    async def both() -> None:
        flights, errors = SingleFlight[int](), list[Exception]()

        async def refused() -> int:
            await anyio.sleep(0.01)
            raise Overloaded("full", 2)

        async def ask() -> None:
            try:
                await flights.run("key", refused)
            except Overloaded as error:
                errors.append(error)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            tasks.start_soon(ask)
        assert len(errors) == 2

        async def fine() -> int:
            return 7

        assert await flights.run("key", fine) == (7, True)

    anyio.run(both)


def test_where_the_one_at_work_is_cancelled_another_takes_over() -> None:
    async def both() -> None:
        flights, results = SingleFlight[str](), list[tuple[str, bool]]()
        begun = anyio.Event()

        async def slow() -> str:
            begun.set()
            await anyio.sleep(60)
            return "slow"

        async def quick() -> str:
            return "quick"

        async def wait() -> None:
            results.append(await flights.run("key", quick))

        async with anyio.create_task_group() as tasks, anyio.create_task_group() as first:
            first.start_soon(flights.run, "key", slow)
            await begun.wait()
            tasks.start_soon(wait)
            await anyio.sleep(0.01)
            assert not results
            first.cancel_scope.cancel()
        assert results == [("quick", True)]

    anyio.run(both)
