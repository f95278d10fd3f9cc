"""Making, importing, listing, verifying and deleting adapters."""

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

import httpx

from lorasmith_client.answers import Adapter, AdapterPage, Job, Verification
from lorasmith_client.errors import Problem, problem
from lorasmith_client.flow import Flow, Request, ask, delete, get, named, post, segment
from lorasmith_client.jobs import result
from lorasmith_client.parsing import built, items, parsed
from lorasmith_client.requests import (
    AdapterFields,
    BatchItem,
    ComposeFields,
    RefineFields,
    VerifyFields,
)

IMPORTED = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "provenance.json",
    "provenance.dsse.json",
    "README.md",
)  # files that an import may have


def submit(
    description: str | None = None,
    *,
    idempotency_key: str | None = None,
    **fields: Unpack[AdapterFields],
) -> Flow[Adapter | Job]:
    """Ask for an adapter, and do not wait: with examples or inputs the answer is a job."""
    body = {"description": description, **fields}
    return _made((yield from post("/v1/adapters", body, idempotency_key)))


def create(
    description: str | None = None,
    *,
    idempotency_key: str | None = None,
    **fields: Unpack[AdapterFields],
) -> Flow[Adapter]:
    """An adapter for a description, examples or both; waits for the job if it is trained."""
    made = yield from submit(description, idempotency_key=idempotency_key, **fields)
    return (yield from finished(made))


def finished(made: Adapter | Job) -> Flow[Adapter]:
    """The adapter that was asked for; waits if it is a job. Raises JobFailed."""
    return made if isinstance(made, Adapter) else (yield from result(made, Adapter))


def batch(requests: Sequence[BatchItem]) -> Flow[list[Adapter | Problem]]:
    """For each of up to 64 requests the adapter, or the problem that it has."""
    response = yield from post("/v1/adapters/batch", {"requests": list(requests)})
    results = items(response, "results")
    return [problem(one) if "code" in one else built(Adapter, one) for one in results]


def submit_refine(
    adapter: str, *, idempotency_key: str | None = None, **fields: Unpack[RefineFields]
) -> Flow[Job]:
    """Train a stored adapter further, into a new one, and do not wait."""
    path = f"/v1/adapters/{segment(adapter)}/refine"
    return parsed(Job, (yield from post(path, fields, idempotency_key)))


def refine(
    adapter: str, *, idempotency_key: str | None = None, **fields: Unpack[RefineFields]
) -> Flow[Adapter]:
    """The new adapter that a stored one becomes by training; waits for the job."""
    job = yield from submit_refine(adapter, idempotency_key=idempotency_key, **fields)
    return (yield from finished(job))


def submit_compose(
    adapters: Sequence[str], *, idempotency_key: str | None = None, **fields: Unpack[ComposeFields]
) -> Flow[Adapter | Job]:
    """Merge adapters into one, and do not wait: what takes seconds is a job."""
    body = {"adapters": list(adapters), **fields}
    return _made((yield from post("/v1/adapters/compose", body, idempotency_key)))


def compose(
    adapters: Sequence[str], *, idempotency_key: str | None = None, **fields: Unpack[ComposeFields]
) -> Flow[Adapter]:
    """One adapter that others were merged into; waits for the job if there is one."""
    made = yield from submit_compose(adapters, idempotency_key=idempotency_key, **fields)
    return (yield from finished(made))


def import_adapter(source: str | Path, *, idempotency_key: str | None = None) -> Flow[Adapter]:
    """Send an adapter in PEFT's form, which is read into memory.

    Args:
        source: a tar, or a folder, of which the files of an adapter are sent and no others.
    """
    path = Path(source)
    headers = {"Content-Type": "application/x-tar", **named(idempotency_key)}
    content = _tar(path) if path.is_dir() else path.read_bytes()
    request = Request("POST", "/v1/adapters/import", content=content, headers=headers)
    return parsed(Adapter, (yield from ask(request)))


def list_adapters(limit: int | None = None, cursor: str | None = None) -> Flow[AdapterPage]:
    """A page of the key's adapters, by id; 20, or `limit` (1 to 100)."""
    return parsed(AdapterPage, (yield from get("/v1/adapters", limit=limit, cursor=cursor)))


def delete_adapter(adapter: str) -> Flow[None]:
    """Delete an adapter. Raises Conflict if it is a version of a name."""
    yield from delete(f"/v1/adapters/{segment(adapter)}")


def submit_verify(adapter: str, **fields: Unpack[VerifyFields]) -> Flow[Job]:
    """Verify an adapter, and do not wait."""
    path = f"/v1/adapters/{segment(adapter)}/verify"
    return parsed(Job, (yield from post(path, fields)))


def verify(adapter: str, **fields: Unpack[VerifyFields]) -> Flow[Verification]:
    """What verification finds about an adapter; waits for the job."""
    return (yield from result((yield from submit_verify(adapter, **fields)), Verification))


def _made(response: httpx.Response) -> Adapter | Job:
    return parsed(Job, response) if response.status_code == 202 else parsed(Adapter, response)


def _tar(folder: Path) -> bytes:
    """An adapter's files in a folder as a tar, without what only this machine knows of them."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for file in (folder / name for name in IMPORTED if (folder / name).is_file()):
            member = tarfile.TarInfo(file.name)
            member.size = file.stat().st_size
            with file.open("rb") as source:
                tar.addfile(member, source)
    return content.getvalue()
