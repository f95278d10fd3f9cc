"""POST /v1/adapters/import: how much is read, of what kind, and of how many at once."""

import tarfile
from collections.abc import Iterator

import pytest
from jobs import (  # noqa: F401  (fixtures)
    client,
    engine,
    library,
    service,
    settings,
    tasks,
)
from rest import assert_problem, client_of
from starlette.testclient import TestClient
from uploads import Files, foreign, left, tar_of, upload  # noqa: F401  (a fixture)

from api.service.service import UPLOADS, Service
from api.service.settings import Settings
from generator.engine import Engine
from library.peft.provenance import README_FILE


def test_a_million_tiny_members_are_not_read(client: TestClient, settings: Settings) -> None:
    member = tarfile.TarInfo(README_FILE).tobuf()
    read: list[int] = []

    def members() -> Iterator[bytes]:
        for number in range(1000):
            read.append(number)
            yield member * 1000

    problem = assert_problem(upload(client, members()), 413)
    assert "exceeds" in problem["detail"]
    assert_problem(upload(client, member * 10_000), 422, "refused")
    assert left(settings) == []


@pytest.fixture
def small(settings: Settings, engine: Engine) -> Iterator[TestClient]:
    with client_of(settings.model_copy(update={"import_bytes": 4096}), engine) as client:
        yield client


def test_the_body_is_limited_while_it_comes(
    small: TestClient, settings: Settings, foreign: Files
) -> None:
    body = tar_of(foreign)
    assert len(body) > 4096
    for content in (body, iter([body[:4000], body[4000:]])):
        problem = assert_problem(upload(small, content), 413, "body-too-large")
        assert problem["detail"] == "the body exceeds 4,096 bytes"
    assert left(settings) == []


def test_other_content_types_are_415(client: TestClient, foreign: Files) -> None:
    body = tar_of(foreign)
    for kind in ("application/json", "application/gzip", "multipart/form-data", ""):
        problem = assert_problem(upload(client, body, **{"Content-Type": kind}), 415, "not-tar")
        assert "application/x-tar" in problem["detail"]
    answer = upload(client, body, **{"Content-Type": "Application/X-Tar; charset=binary"})
    assert answer.status_code == 201


def test_only_so_many_are_received_at_once(
    client: TestClient, service: Service, foreign: Files
) -> None:
    for _ in range(UPLOADS):
        service.uploads.enter()
    problem = upload(client, tar_of(foreign))
    assert_problem(problem, 429, "overloaded")
    assert problem.headers["retry-after"] == "7"
    service.uploads.leave()
    assert upload(client, tar_of(foreign)).status_code == 201
