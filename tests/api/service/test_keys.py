"""KeyStore: shown once, kept as a hash, found by their id, revoked at once; and the command."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from api.cli.main import main
from api.errors import Unauthenticated
from api.service.keys import KeyStore, require_rate


@pytest.fixture
def keys(tmp_path: Path) -> KeyStore:
    return KeyStore(tmp_path)


def stored(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.glob("keys.sqlite3*")))


def test_a_key_is_found_by_its_text_alone_and_only_a_hash_is_kept(
    keys: KeyStore, tmp_path: Path
) -> None:
    key, text = keys.create("laptop", ["admin", "read"], 5, "60/minute")
    other, another = keys.create("desk")
    assert (keys.find(text), keys.find(another)) == (key, other)
    assert (key.scopes, other.scopes) == (("read", "admin"), ("read", "write"))
    prefix, identity, secret = text.split("_")
    assert (prefix, identity, len(secret)) == ("lsk", key.id, 64)
    content = stored(tmp_path)
    assert secret.encode() not in content and bytes.fromhex(secret) not in content
    assert hashlib.sha256(secret.encode()).hexdigest().encode() in content
    assert keys.all() == [key, other]


@given(data=st.data())
def test_nothing_else_is_a_key(data: st.DataObject, tmp_path_factory: Any) -> None:
    keys = KeyStore(tmp_path_factory.mktemp("keys"))
    _, text = keys.create("laptop")
    _, another = keys.create("desk")
    place = data.draw(st.integers(0, len(text) - 1))
    changed = text[:place] + data.draw(st.characters()) + text[place + 1 :]
    mixed = text[:21] + another[21:]  # a right id with another key's secret
    for wrong in (changed, text[:place], text + "0", mixed, text.upper(), "", "local", "\ud800"):
        if wrong != text:
            with pytest.raises(Unauthenticated, match="not one of"):
                keys.find(wrong)


def test_a_revoked_key_is_refused_at_once_by_whoever_has_the_file_open(
    keys: KeyStore, tmp_path: Path
) -> None:
    key, text = keys.create("laptop")
    kept, other = keys.create("desk")
    revoked = KeyStore(tmp_path).revoke(key.id)
    assert revoked.revoked is not None
    with pytest.raises(Unauthenticated, match=f"{key.id} was revoked"):
        keys.find(text)
    with pytest.raises(Unauthenticated, match="not one of"):
        keys.find(text[:-1] + ("0" if text[-1] != "0" else "1"))
    assert keys.find(other) == kept
    assert keys.revoke(key.id) == revoked, "once is enough"
    assert [k.revoked for k in keys.all()] == [revoked.revoked, None]


def test_there_are_keys_also_if_all_are_revoked(keys: KeyStore) -> None:
    assert not keys.exist() and keys.all() == []
    keys.revoke(keys.create("laptop")[0].id)
    assert keys.exist()


@pytest.mark.parametrize("rate", ["1/second", "60/minute", "99999/hour", "5/day"])
def test_rates(rate: str) -> None:
    assert require_rate(rate) == rate


WRONG: list[tuple[list[str], str]] = [
    (["create", ""], "the name must be 1 to 100 printable characters"),
    (["create", " "], "the name must be"),
    (["create", "a\nb"], "the name must be"),
    (["create", "\ud800"], "the name must be"),
    (["create", "x" * 101], "the name must be"),
    (["create", "x", "--scope", "root"], "unknown scope 'root'; known: read, write, admin"),
    (["create", "x", "--quota-bytes", "0"], "the quota must be from 1"),
    (["create", "x", "--quota-bytes", str(2**63)], "the quota must be"),
    (["create", "x", "--rate", "0/minute"], "a rate is a number"),
    (["create", "x", "--rate", "60/minute;1/second"], "a rate is a number"),
    (["create", "x", "--rate", "60/fortnight"], "a rate is a number"),
    (["create", "x", "--rate", "6٣/minute"], "a rate is a number"),
    (["create"], "Missing argument"),
    (["revoke", "0" * 16], f"there is no key with the id '{'0' * 16}'"),
    (["revoke", "\ud800"], "there is no key with the id"),
]


@pytest.mark.parametrize(("arguments", "words"), WRONG, ids=lambda v: ascii(v)[:40])
def test_what_is_wrong_is_said_in_one_sentence(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LORASMITH_DATA", str(tmp_path))
    assert main(["keys", *arguments]) == 2
    assert words in tiny.one_sentence(capsys.readouterr())
    assert KeyStore(tmp_path).all() == []


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LORASMITH_DATA", str(tmp_path))

    def told(*arguments: str) -> Any:
        assert main(["keys", *arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    limits = ["--quota-bytes", "1000", "--rate", "60/minute"]
    made = told("create", " laptop ", "--scope", "admin", "--scope", "read", *limits)
    assert sorted(made) == sorted(
        ["id", "name", "scopes", "quota_bytes", "rate", "created", "revoked", "key"]
    )
    text = made.pop("key")
    assert KeyStore(tmp_path).find(text).to_dict() == made
    assert (made["name"], made["scopes"]) == ("laptop", ["read", "admin"])
    assert told("list") == {"keys": [made]}
    assert main(["keys", "create", "desk"]) == 0
    shown = capsys.readouterr()
    desk = KeyStore(tmp_path).find(shown.out.strip())
    assert desk.scopes == ("read", "write") and desk.id in shown.err
    revoked = told("revoke", desk.id)
    assert revoked == {**desk.to_dict(), "revoked": revoked["revoked"]}
    assert main(["keys", "list"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{made['id']}  read,admin  made ") and first.endswith(
        "active  1,000 bytes  60/minute  laptop"
    )
    assert "revoked 2" in second and "_" not in first + second
