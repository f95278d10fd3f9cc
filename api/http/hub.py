"""Stored adapters as repositories `generated/{id}`, for the clients of the Hugging Face Hub.

What `huggingface_hub`, PEFT and transformers ask for to read a model, and no more. A repository has
one revision: its commit is the adapter's id without `ad_`.
"""

import hashlib
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from api.errors import NotFound
from api.http.adapters import MEDIA_TYPES
from api.http.dependencies import CallerOf, ServiceOf
from api.http.downloads import file_response
from api.service.store import GENERATED

_COMMIT = "X-Repo-Commit"

# Not in the OpenAPI document: the Hub's clients know them, and others have /v1/adapters.
router = APIRouter(include_in_schema=False)


class _NotOnHub(NotFound):
    """What a client of the Hub raises the right error for, by the header X-Error-Code."""

    def __init__(self, message: str, error_code: str, **headers: str) -> None:
        super().__init__(message)
        self.headers = {"X-Error-Code": error_code, **headers}


def _stored(repository: str, service: ServiceOf, caller: CallerOf) -> str:
    """The id of the adapter that a repository is. Raises _NotOnHub."""
    if not repository.startswith(GENERATED):
        raise _NotOnHub(f"there are repositories {GENERATED}ID alone", "RepoNotFound")
    identity = repository.removeprefix(GENERATED)
    try:
        service.store.require(caller.sees, identity)
    except NotFound as error:
        raise _NotOnHub(str(error), "RepoNotFound") from error
    return identity


Stored = Annotated[str, Depends(_stored)]


def _commit_at(identity: str, revision: str) -> str:
    """The commit that a revision is. Raises _NotOnHub."""
    commit = commit_of(identity)
    if revision not in ("main", commit):
        message = f"the repository has one revision, {commit} or main"
        raise _NotOnHub(message, "RevisionNotFound")
    return commit


def commit_of(identity: str) -> str:
    """The 40 hexadecimal digits that stand for an adapter's one revision."""
    return identity.removeprefix("ad_")


@router.get("/api/models/{repository:path}/tree/{revision:path}")
def list_files(
    identity: Stored, revision: str, service: ServiceOf, caller: CallerOf
) -> list[dict[str, Any]]:
    """List the files, each with its size and the digest that Git would give it."""
    _commit_at(identity, revision)
    files = service.store.files(caller.sees, service.store.get(caller.sees, identity))
    return [
        {"type": "file", "path": name, "size": len(content), "oid": _git_digest(content)}
        for name, content in sorted(files.items())
    ]


@router.get("/api/models/{repository:path}/revision/{revision:path}")
def show_revision(
    identity: Stored, revision: str, service: ServiceOf, caller: CallerOf
) -> dict[str, Any]:
    """Show a repository at a revision."""
    commit = _commit_at(identity, revision)
    files = sorted(service.store.get(caller.sees, identity)["files"])
    return {
        "id": f"{GENERATED}{identity}",
        "sha": commit,
        "library_name": "peft",
        "siblings": [{"rfilename": name} for name in files],
    }


@router.get("/api/models/{repository:path}")
def show_repository(identity: Stored, service: ServiceOf, caller: CallerOf) -> dict[str, Any]:
    """Show a repository."""
    return show_revision(identity, "main", service, caller)


@router.head("/{repository:path}/resolve/{revision}/{name:path}")
@router.get("/{repository:path}/resolve/{revision}/{name:path}")
def resolve_file(
    identity: Stored,
    revision: str,
    name: str,
    request: Request,
    service: ServiceOf,
    caller: CallerOf,
) -> Response:
    """Download a file; its ETag is its SHA-256."""
    commit = _commit_at(identity, revision)
    try:
        _, sha256 = service.store.read(caller.sees, identity, name)  # the digest is checked here
    except NotFound as error:
        raise _NotOnHub(str(error), "EntryNotFound", **{_COMMIT: commit}) from error
    path, media_type = service.store.path(identity, name), MEDIA_TYPES[name]
    response = file_response(request, path, sha256, media_type, immutable=False)
    response.headers[_COMMIT] = commit
    return response


def _git_digest(content: bytes) -> str:
    """The object id of a blob in Git, by which clients verify what they have."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
