"""Files of an adapter over HTTP: tags, ranges, deletion, and what was changed by hand."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI, Request, Response
from hypothesis import given
from hypothesis import strategies as st
from rest import TASK, UNKNOWN_ID, assert_problem, client, engine, post, settings  # noqa: F401  (fixtures)
from starlette.testclient import TestClient

from api.http import problems
from api.http.downloads import BYTES, file_response
from api.service.settings import Settings
from library.peft.write import WEIGHTS_FILE


def test_files_have_tags_and_ranges(client: TestClient) -> None:
    client.headers["X-Request-Id"] = "same"
    file = post(client, {"description": TASK}).json()["files"][WEIGHTS_FILE]
    url, size, tag = file["url"], file["bytes"], f'"{file["sha256"]}"'
    whole = client.get(url)
    assert whole.headers["etag"] == tag
    assert whole.headers["accept-ranges"] == "bytes"
    assert whole.headers["content-length"] == str(size) == str(len(whole.content))

    head = client.head(url)
    assert (head.status_code, head.content) == (200, b"")
    assert dict(head.headers) == dict(whole.headers)

    for value in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        unchanged = client.get(url, headers={"If-None-Match": value})
        assert (unchanged.status_code, unchanged.content) == (304, b"")
        assert unchanged.headers["etag"] == tag
    assert client.get(url, headers={"If-None-Match": '"other"'}).status_code == 200

    part = client.get(url, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, whole.content[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{size}"
    assert part.headers["content-length"] == "10"
    assert client.get(url, headers={"Range": "bytes=-7"}).content == whole.content[-7:]
    assert client.get(url, headers={"Range": "bytes=5-", "If-Range": tag}).status_code == 206
    for headers in (
        {"Range": "bytes=5-", "If-Range": '"other"'},
        {"Range": "bytes=5-", "If-Range": "Fri, 31 Dec 2060 23:59:59 GMT"},
        {"Range": "bytes=1-2,4-5"},
    ):
        assert client.get(url, headers=headers).content == whole.content

    beyond = client.get(url, headers={"Range": f"bytes={size}-"})
    assert_problem(beyond, 416, "range-not-satisfiable")
    assert beyond.headers["content-range"] == f"bytes */{size}"


@pytest.fixture(scope="module")
def ten_bytes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """`/{size}` is a file of the first bytes of 0123456789."""
    folder, app = tmp_path_factory.mktemp("files"), FastAPI()
    problems.install(app)

    @app.get("/{size}")
    def get(size: int, request: Request) -> Response:
        path = folder / str(size)
        path.write_bytes(bytes(range(size)))
        return file_response(request, path, "digest", BYTES, immutable=True)

    with TestClient(app) as client:
        yield client


@given(st.integers(0, 12), st.integers(0, 12) | st.none(), st.integers(1, 10))
def test_ranges_are_slices(ten_bytes: TestClient, first: int, last: int | None, size: int) -> None:
    data = bytes(range(size))

    def part(header: str) -> Any:
        return ten_bytes.get(f"/{size}", headers={"Range": header})

    answer = part(f"bytes={first}-{'' if last is None else last}")
    if last is not None and last < first:
        assert (answer.status_code, answer.content) == (200, data)
    elif first >= size:
        assert_problem(answer, 416, "range-not-satisfiable")
        assert answer.headers["content-range"] == f"bytes */{size}"
    else:
        stop = size if last is None else min(last + 1, size)
        assert (answer.status_code, answer.content) == (206, data[first:stop])
        assert answer.headers["content-range"] == f"bytes {first}-{stop - 1}/{size}"
    if first:
        assert part(f"bytes=-{first}").content == data[-first:]


@pytest.mark.parametrize(
    "header",
    ["", "bytes", "bytes=-", "items=0-1", "bytes=a-b", "bytes=+1-2", "bytes=1_0-", "bytes=٣-٤"],
)
def test_senseless_ranges_are_ignored(ten_bytes: TestClient, header: str) -> None:
    answer = ten_bytes.get("/10", headers={"Range": header.encode()})
    assert (answer.status_code, answer.content) == (200, bytes(range(10)))


def test_a_range_is_for_get_alone(client: TestClient) -> None:
    url = post(client, {"description": TASK}).json()["files"][WEIGHTS_FILE]["url"]
    head = client.head(url, headers={"Range": "bytes=10-19"})
    assert head.status_code == 200 and "content-range" not in head.headers


def test_unknown_adapters_and_files_are_not_found(client: TestClient) -> None:
    url = post(client, {"description": TASK}).headers["location"]
    for path in [
        f"{url}/files/other.json",
        f"{url}/files/..%2F..%2Fowners.sqlite3",
        f"{url.upper()}",
        f"{url}0",
        f"/v1/adapters/{UNKNOWN_ID}",
        f"/v1/adapters/{UNKNOWN_ID}/files/{WEIGHTS_FILE}",
        "/v1/adapters/..%2F..",
    ]:
        assert_problem(client.get(path), 404, "not-found")
        assert client.head(f"{url}/files/other.json").status_code == 404
    assert_problem(client.delete(f"/v1/adapters/{UNKNOWN_ID}"), 404, "not-found")


def test_a_deleted_adapter_is_gone_and_can_be_made_again(client: TestClient) -> None:
    first = post(client, {"description": TASK})
    url, file = first.headers["location"], first.json()["files"][WEIGHTS_FILE]["url"]
    deleted = client.delete(url)
    assert (deleted.status_code, deleted.content) == (204, b"")
    for answer in (client.delete(url), client.get(url), client.get(file)):
        assert_problem(answer, 404, "not-found")
    again = post(client, {"description": TASK})
    assert (again.status_code, again.content) == (201, first.content)


def test_a_file_removed_by_hand_is_not_found_until_asked_for_again(
    client: TestClient, settings: Settings
) -> None:
    body = post(client, {"description": TASK}).json()
    (settings.data / "adapters" / body["id"] / WEIGHTS_FILE).unlink()
    assert_problem(client.get(body["files"][WEIGHTS_FILE]["url"]), 404)
    assert_problem(client.get(f"/v1/adapters/{body['id']}"), 404)
    assert post(client, {"description": TASK}).json() == body
    assert client.get(body["files"][WEIGHTS_FILE]["url"]).status_code == 200
    shutil.rmtree(settings.data)
    assert_problem(client.get(f"/v1/adapters/{body['id']}"), 404)
    assert post(client, {"description": TASK}).status_code == 201
