"""Requests that a web page could send, what JSON allows and nobody should, headers of answers."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from rest import (  # noqa: F401  (fixtures)
    JSON,
    TASK,
    UNKNOWN_ID,
    assert_problem,
    bearer,
    client,
    client_of,
    engine,
    lasting,
    post,
    settings,
)
from starlette.testclient import TestClient

from api.service.keys import KeyStore
from api.service.settings import Settings, load_settings
from generator.engine import Engine
from library.errors import UsageError
from library.peft.provenance import PROVENANCE_FILE, README_FILE
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE

EVERYWHERE = ["/v1/base-models", "/health/live", "/openapi.json", "/docs", "/nonsense"]
OWN = [
    "localhost",
    "localhost:8000",
    "LOCALHOST:1",
    "127.0.0.1",
    "127.0.0.1:99",
    "[::1]",
    "[::1]:9",
]
FOREIGN = [
    "evil.example", "evil.example:8000", "", "localhost.", "localhost.evil.example", "::1", "[::2]",
    "127.0.0.1.evil.example", "evil.example@localhost", "localhost:80:80", "localhost/", "0.0.0.0",
    "localhost:", "localhost:x", " localhost evil", "169.254.169.254", "lócalhost",
]  # fmt: skip


def asked(client: TestClient, path: str, *hosts: str) -> Any:
    headers = [("Host", host.encode("latin-1")) for host in hosts]
    return client.get(path, headers=headers)  # type: ignore[arg-type]


@pytest.mark.parametrize("host", OWN)
def test_on_loopback_a_service_answers_to_the_names_of_loopback(
    lasting: TestClient, host: str
) -> None:
    assert asked(lasting, "/v1/base-models", host).status_code == 200


@pytest.mark.parametrize("host", FOREIGN)
def test_and_to_no_other(lasting: TestClient, host: str) -> None:
    for path in EVERYWHERE:
        assert_problem(asked(lasting, path, host), 421, "misdirected")


def test_two_hosts_are_none(lasting: TestClient) -> None:
    both = asked(lasting, "/v1/base-models", "localhost", "localhost")
    assert_problem(both, 421, "misdirected")


def test_a_foreign_host_makes_nothing(client: TestClient, settings: Settings) -> None:
    answer = post(client, {"description": TASK}, Host="evil.example:8000")
    assert_problem(answer, 421, "misdirected")
    assert not (settings.data / "adapters").exists()


def test_the_configured_host_and_the_allowed_ones_are_names(engine: Engine, tmp_path: Path) -> None:
    names = "lora.example, Other.example"
    for host, own in (("127.8.9.1", "127.8.9.1"), ("::1", "[::1]")):
        with client_of(Settings(data=tmp_path, host=host, allowed_hosts=names), engine) as client:  # type: ignore[arg-type]
            for name in (own, "localhost", "lora.example:443", "other.EXAMPLE"):
                assert asked(client, "/health/live", name).status_code == 200
            for name in ("evil.example", "127.8.9.2", "a.lora.example"):
                assert_problem(asked(client, "/health/live", name), 421)


def test_elsewhere_any_name_will_do_until_some_are_named(engine: Engine, tmp_path: Path) -> None:
    with client_of(Settings(data=tmp_path, host="0.0.0.0"), engine) as client:
        assert asked(client, "/health/live", "lora.example").status_code == 200
        assert_problem(asked(client, "/v1/base-models", "lora.example"), 401)
    named = Settings(data=tmp_path, host="0.0.0.0", allowed_hosts=("lora.example",))
    with client_of(named, engine) as client:
        assert asked(client, "/health/live", "lora.example").status_code == 200
        assert_problem(asked(client, "/health/live", "localhost"), 421)


def test_names_that_no_host_can_have_are_told_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORASMITH_ALLOWED_HOSTS", "a.example, [::2],b")
    assert load_settings().allowed_hosts == ("a.example", "[::2]", "b")
    for wrong in ("a.example:80", "a.example,,b", "http://a.example", "*"):
        monkeypatch.setenv("LORASMITH_ALLOWED_HOSTS", wrong)
        with pytest.raises(UsageError, match=r"setting allowed_hosts: .* not the name of a host"):
            load_settings()


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "https://localhost.evil.example", "null", "", "file://"]
)
def test_pages_of_other_origins_are_refused(lasting: TestClient, origin: str) -> None:
    verify = f"/v1/adapters/{UNKNOWN_ID}/verify"
    for headers in ({"Origin": origin}, {"Origin": origin, **JSON}):
        assert_problem(lasting.post(verify, headers=headers), 403, "cross-origin")
        assert_problem(lasting.get("/v1/generators", headers=headers), 403, "cross-origin")


@pytest.mark.parametrize("origin", ["http://localhost:8000", "https://127.0.0.1", "http://[::1]:3"])
def test_pages_of_the_service_itself_may_ask(lasting: TestClient, origin: str) -> None:
    assert_problem(post(lasting, {}, Origin=origin), 422)


@pytest.mark.parametrize(
    "media", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
)
def test_what_a_page_may_send_unasked_is_no_request(lasting: TestClient, media: str) -> None:
    """Also if the browser tells no Origin; other types need a preflight, which is refused."""
    for path in ("/v1/adapters", f"/v1/adapters/{UNKNOWN_ID}/verify"):
        content = json.dumps({"description": TASK})
        answer = lasting.post(path, content=content, headers={"Content-Type": media})
        assert_problem(answer, 415, "not-json")
    asks = {"Origin": "http://localhost:1", "Access-Control-Request-Method": "POST"}
    preflight = lasting.options("/v1/adapters", headers=asks)
    assert_problem(preflight, 405)
    assert not [name for name in preflight.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "body",
    [
        b'{"description": "x", "description": "y"}',
        b'{"description": "x", "d\\u0065scription": "x"}',
        b'{"examples": [{"input": "a", "output": "b", "input": "a"}]}',
        b'{"description": "x", "\\ud800": 1, "\\ud800": 1}',
    ],
)
def test_a_name_that_comes_twice_is_400(lasting: TestClient, body: bytes) -> None:
    assert "twice" in assert_problem(post(lasting, body), 400, "malformed-body")["detail"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"description": "a\0b"}, "invalid-description"),
        ({"description": TASK, "inputs": ["a\0"]}, "invalid-field"),
        ({"examples": [{"input": "\0", "output": "b"}]}, "invalid-field"),
        ({"examples": [{"input": "a", "output": "b\0"}]}, "invalid-field"),
        ({"description": TASK, "generator": "\0"}, "unknown-name"),
        ({"description": TASK, "base": "\0"}, "unknown-name"),
        ({"description": TASK, "\0": 1}, "invalid-field"),
    ],
)
def test_nul_is_422(lasting: TestClient, body: Any, code: str) -> None:
    assert_problem(post(lasting, body), 422, code)


def test_nul_in_a_query_or_path_is_refused_too(lasting: TestClient) -> None:
    assert_problem(lasting.get("/v1/search?q=a%00b"), 422, "invalid-description")
    assert_problem(lasting.get("/v1/adapters/%00"), 404)
    assert_problem(lasting.get("/v1/jobs/job_%00"), 404)


def test_every_answer_has_the_headers_of_safety(client: TestClient, settings: Settings) -> None:
    made = post(client, {"description": TASK})
    answers = [made, client.get(made.headers["location"]), post(client, {}), post(client, b"{")]
    answers += [client.get(path) for path in EVERYWHERE]
    answers += [client.get("/health/live", headers={"Host": "evil.example"})]
    _, text = KeyStore(settings.data).create("laptop")
    answers += [client.get("/v1/generators"), client.get("/v1/generators", headers=bearer(text))]
    for file in settings.data.glob("owners.sqlite3*"):  # with what is kept beside it
        file.unlink()
    (settings.data / "owners.sqlite3").write_bytes(b"no database, " * 1000)
    answers += [client.get(made.headers["location"], headers=bearer(text))]
    assert [answer.status_code for answer in answers] == [
        201, 200, 422, 400, 200, 200, 200, 200, 404, 421, 401, 200, 500
    ]  # fmt: skip
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["content-security-policy"] == "frame-ancestors 'none'"
        assert answer.headers["cache-control"] == "no-store"


def test_a_script_in_a_description_is_no_page(client: TestClient) -> None:
    script = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    made = post(client, {"description": script}).json()
    told = [client.get(file["url"]) for file in made["files"].values()]
    told += [
        client.get(f"/v1/adapters/{made['id']}"),
        client.get("/v1/search", params={"q": script}),
    ]
    told += [client.get(f"/{quote(script)}"), post(client, {script: 1})]
    for answer in told:
        assert not answer.headers["content-type"].startswith(("text/html", "image/"))
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/search?q=x&k=-1", 422),
        (f"/v1/search?q=x&k={10**30}", 422),
        ("/v1/adapters?limit=101", 422),
        (f"/v1/adapters?limit={10**30}", 422),
        (f"/v1/library?limit={10**30}", 422),
        ("/v1/library/map?q=a%00b", 422),
        ("/v1/library/map?q=" + "x" * 9000, 422),
        ("/v1/adapters/name@v99999999999999999999", 404),
        ("/v1/adapters/..%2f..%2fkeys.sqlite3", 404),
        (f"/v1/adapters/{UNKNOWN_ID}/files/..%2f..%2f..%2fkeys.sqlite3", 404),
        ("/v1/names/..%2f..%2fetc", 404),
        ("/v1/jobs/..%2fadapters", 404),
        ("/generated/..%2f..%2fetc/resolve/main/passwd", 404),
    ],
)
def test_numbers_and_paths_beyond_all_bounds(lasting: TestClient, path: str, status: int) -> None:
    assert_problem(lasting.get(path), status)


def test_files_that_the_id_stands_for_may_be_kept(client: TestClient) -> None:
    files = post(client, {"description": TASK}).json()["files"]
    for name, file in files.items():
        kept = name in (CONFIG_FILE, WEIGHTS_FILE)
        expected = "private, max-age=31536000, immutable" if kept else "private, no-cache"
        tag = {"If-None-Match": f'"{file["sha256"]}"'}
        for answer in (
            client.get(file["url"]),
            client.head(file["url"]),
            client.get(file["url"], headers={"Range": "bytes=0-1"}),
            client.get(file["url"], headers=tag),
        ):
            assert answer.headers["cache-control"] == expected
            assert answer.headers["x-content-type-options"] == "nosniff"
    assert {PROVENANCE_FILE, README_FILE, CONFIG_FILE, WEIGHTS_FILE} == {*files}
