"""POST /v1/adapters/import: what a provenance states, and what of it is believed."""

import json
from typing import Any

import pytest
from jobs import (  # noqa: F401  (fixtures)
    TASK,
    client,
    engine,
    library,
    made,
    service,
    settings,
    stored,
    tasks,
)
from rest import assert_problem, use
from starlette.testclient import TestClient
from uploads import Files, download, tar_of, upload

from api.service.service import Service
from api.service.settings import Settings
from library.peft.provenance import PROVENANCE_FILE, README_FILE, adapter_id
from library.peft.write import CONFIG_FILE


def restated(files: Files, **changes: Any) -> Files:
    """The files with another provenance that has a true id."""
    said = json.loads(files[PROVENANCE_FILE]) | changes
    said["id"] = adapter_id(json.loads(files[CONFIG_FILE]), said["sha256"], said)
    return {**files, PROVENANCE_FILE: json.dumps(said).encode()}


@pytest.mark.parametrize(
    "changes",
    [
        {"base": None},
        {"base": {"id": "another", "sha256": None, "source": ""}},
        {"base": {"id": "tiny", "sha256": 1, "source": ""}},
        {"generator": 1},
        {"description": ["x"]},
        {"seed": True},
        {"seed": -1},
        {"usage": {"mode": "loud", "template": ""}},
        {"usage": 3},
        {"expected": "fine"},
        {"layout_digest": None},
    ],
)
def test_a_provenance_that_is_none_of_ours_is_refused(
    client: TestClient, settings: Settings, changes: dict[str, Any]
) -> None:
    identity = made(client)
    files = restated(download(client, identity), **changes)
    assert_problem(upload(client, tar_of(files)), 422, "refused")
    assert stored(settings) == [identity]


def test_what_is_only_stated_gives_way_to_what_is_made(
    client: TestClient, service: Service
) -> None:
    (_, ann), (_, ben), (_, cid) = (service.keys.create(name) for name in ("ann", "ben", "cid"))
    use(client, ann)
    identity = made(client)
    true = download(client, identity)
    client.delete(f"/v1/adapters/{identity}")
    expected = {"score": 100, "low": 100, "high": 100, "calibration": "trust me"}
    forged = {**restated(true, expected=expected), README_FILE: b"# Buy this\n"}
    body = upload(client, tar_of(forged)).json()
    assert body["id"] == identity and body["expected"] is None
    readme = download(client, identity)[README_FILE]
    assert b"Buy" not in readme and b"trust me" in readme  # written again from what is stated
    use(client, cid)
    assert_problem(upload(client, tar_of(true)), 409, "conflict")
    assert client.get(f"/v1/adapters/{identity}").status_code == 404
    use(client, ben)
    assert made(client, TASK) == identity
    for key in (ben, ann):
        use(client, key)
        assert download(client, identity) == true
