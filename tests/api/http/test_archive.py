"""An adapter's archive: its files, the same bytes each time, and nothing of it on the disk."""

import hashlib
import io
import tarfile
from pathlib import Path
from typing import Any

import pytest
from rest import TASK, UNKNOWN_ID, assert_problem, client, engine, post, settings  # noqa: F401  (fixtures)
from starlette.testclient import TestClient

from api.cli.main import main
from api.http import archive
from api.service.settings import Settings
from api.service.store import Store
from library import files


def everything(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def test_the_archive_holds_the_files_in_a_folder(
    client: TestClient, settings: Settings, tmp_path: Path
) -> None:
    adapter = post(client, {"description": TASK}).json()
    url, before = f"/v1/adapters/{adapter['id']}/archive", everything(settings.data)
    answer = client.get(url)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/x-tar"
    assert answer.headers["etag"] == f'"{hashlib.sha256(answer.content).hexdigest()}"'
    assert answer.headers["content-length"] == str(len(answer.content))
    disposition = f'attachment; filename="{adapter["id"]}.tar"'
    assert answer.headers["content-disposition"] == disposition
    assert everything(settings.data) == before
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as tar:
        members = tar.getmembers()
        assert [m.name for m in members] == [
            f"{adapter['id']}/{n}" for n in sorted(adapter["files"])
        ]
        assert {(m.mtime, m.uid, m.gid, m.uname, m.mode) for m in members} == {(0, 0, 0, "", 0o644)}
        tar.extractall(tmp_path, filter="data")
    folder = tmp_path / adapter["id"]
    for name, file in adapter["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == file["sha256"]
    assert main(["verify", str(folder)]) == 0


def test_tags_and_heads(client: TestClient) -> None:
    url = f"{post(client, {'description': TASK}).headers['location']}/archive"
    client.headers["X-Request-Id"] = "same"
    whole, head = client.get(url), client.head(url)
    assert (head.status_code, head.content) == (200, b"")
    assert dict(head.headers) == dict(whole.headers)
    tag = whole.headers["etag"]
    unchanged = client.get(url, headers={"If-None-Match": tag})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert unchanged.headers["etag"] == tag
    again = client.get(url, headers={"If-None-Match": '"other"'})
    assert (again.status_code, again.content) == (200, whole.content)


def test_files_are_read_in_pieces(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"{post(client, {'description': TASK}).headers['location']}/archive"
    whole = client.get(url).content
    monkeypatch.setattr(files, "PIECE", 1000)
    assert client.get(url).content == whole


def test_what_is_not_there_or_not_whole_is_404(client: TestClient, settings: Settings) -> None:
    adapter = post(client, {"description": TASK}).json()["id"]
    for other in (UNKNOWN_ID, "nonsense", "ad_%ED%A0%80"):
        assert_problem(client.get(f"/v1/adapters/{other}/archive"), 404, "not-found")
    (settings.data / "adapters" / adapter / "README.md").write_bytes(b"changed")
    assert_problem(client.get(f"/v1/adapters/{adapter}/archive"), 404, "not-found")


def test_deleted_before_it_is_opened_it_is_404_and_after_that_it_is_whole(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = post(client, {"description": TASK}).headers["location"]
    whole = client.get(f"{url}/archive").content
    pieces, get, read = archive.file_pieces, Store.get, Store.read

    def deleting(work: Any) -> Any:
        def then_delete(*args: Any) -> Any:
            found = work(*args)
            client.delete(url)
            return found

        return then_delete

    with monkeypatch.context() as patch:
        patch.setattr(archive, "file_pieces", deleting(pieces))
        assert client.get(f"{url}/archive").content == whole
    post(client, {"description": TASK})
    with monkeypatch.context() as patch:
        patch.setattr(Store, "get", deleting(get))
        assert_problem(client.get(f"{url}/archive"), 404, "not-found")
    post(client, {"description": TASK})
    with monkeypatch.context() as patch:
        patch.setattr(Store, "read", deleting(read))
        assert_problem(client.get(f"{url}/files/README.md"), 404, "not-found")
