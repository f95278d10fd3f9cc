"""The page over HTTP: always there, open, from here alone, and its limits are the service's."""

import re
from pathlib import Path

import pytest
from rest import assert_problem, bearer, client_of, engine, lasting  # noqa: F401  (fixtures)
from starlette.testclient import TestClient

from api.http.headers import SAFE
from api.http.page import OF_PAGE
from api.service.keys import KeyStore
from api.service.settings import Settings
from generator.engine import Engine
from generator.refine.limits import MAX_EXAMPLES

NAMESPACE = "http://www.w3.org/2000/svg"  # a name, which nobody fetches


@pytest.fixture(scope="module")
def html(lasting: TestClient) -> str:
    return lasting.get("/").text


def test_the_page_is_html_with_the_headers_of_every_answer(lasting: TestClient) -> None:
    answer = lasting.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.text.startswith("<!doctype html>")
    for name in {*SAFE} - {"Content-Security-Policy"}:
        assert answer.headers[name] == SAFE[name]
    head = lasting.head("/")
    assert (head.status_code, head.content) == (200, b"")


def test_its_policy_permits_what_comes_from_here_alone(lasting: TestClient, html: str) -> None:
    policy = lasting.get("/").headers["content-security-policy"].split("; ")
    assert "default-src 'none'" in policy and SAFE["Content-Security-Policy"] in policy
    assert {source for rule in policy for source in rule.split()[1:]} == {"'none'", "'self'"}
    assert not re.search(r"<style|<script[^>]*>[^<]|\sstyle=|\son[a-z]+=|javascript:", html)


def test_nothing_of_it_names_another_host(lasting: TestClient) -> None:
    for path in OF_PAGE:
        text = lasting.get(path).text.replace(NAMESPACE, "")
        assert "//" not in re.sub(r"^\s*//.*$|\s// .*$", "", text, flags=re.MULTILINE), path


def test_what_it_loads_is_there(lasting: TestClient, html: str) -> None:
    named = {*re.findall(r'(?:src|href)="(/page/[^"]+)"', html)}
    scripts = [path for path in OF_PAGE if path.endswith(".js")]
    for path in scripts:
        named |= {f"/page/{name}" for name in re.findall(r'"\./(.+\.js)"', lasting.get(path).text)}
    assert named == {*OF_PAGE} - {"/"}
    for path in named:
        answer = lasting.get(path)
        assert answer.status_code == 200 and answer.content
        kind = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
        assert answer.headers["content-type"].split(";")[0] == kind[Path(path).suffix]
        known = {"If-None-Match": answer.headers["etag"]}
        assert lasting.get(path, headers=known).status_code == 304


@pytest.mark.parametrize("name", ["__init__.py", "page.html.jinja", "none.js", "..%2f__init__.py"])
def test_other_files_are_not(lasting: TestClient, name: str) -> None:
    assert_problem(lasting.get(f"/page/{name}"), 404, "not-found")


def test_it_is_there_while_nothing_is_loaded_and_with_keys(tmp_path: Path, engine: Engine) -> None:
    settings = Settings(data=tmp_path)
    with client_of(settings, None) as client:
        assert client.get("/").status_code == 200
    KeyStore(tmp_path).create("first")
    elsewhere = Settings(data=tmp_path / "none", host="0.0.0.0")  # needs keys, and has none
    for locked in (settings, elsewhere):
        with client_of(locked, engine) as client:
            for headers in ({}, bearer("nonsense")):
                for path in OF_PAGE:
                    assert client.get(path, headers=headers).status_code == 200
            assert_problem(client.get("/v1/generators"), 401)
            assert_problem(client.get("/page/none.js"), 401)


def test_it_is_no_door_for_other_hosts_and_methods(lasting: TestClient) -> None:
    assert_problem(lasting.get("/", headers={"Host": "evil.example"}), 421, "misdirected")
    assert_problem(lasting.post("/"), 405, "method-not-allowed")


def test_its_limits_are_those_of_the_service(html: str) -> None:
    assert f"Up to {MAX_EXAMPLES}." in html and "Up to 8,192 characters." in html
    assert "{{" not in html and "{%" not in html


def test_texts_stay_texts_and_ids_one_part_of_a_path(lasting: TestClient) -> None:
    """A script in a description is shown; an id of the address, as `../x`, leads nowhere else."""
    for path in OF_PAGE:
        if path.endswith(".js"):
            text = lasting.get(path).text
            assert not re.search(r"(inner|outer)HTML|insertAdjacent|document\.write|srcdoc", text)
            assert not re.search(r"\beval\b|\bFunction\(|setTimeout\([\"'`]", text)
            for part in re.findall(r"`/v1/[a-z]+/\$\{([^}]*)\}", text):
                assert part.startswith("encodeURIComponent("), (path, part)
