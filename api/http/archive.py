"""`/v1/adapters/{id}/archive`: all files of an adapter in one tar."""

from collections.abc import Iterator, Sequence
from typing import IO

from fastapi import APIRouter, Request, Response

from api.http.adapters import AdapterId
from api.http.dependencies import CallerOf, ServiceOf
from api.http.downloads import stream_response
from api.http.problems import documented
from library.archive import tar_parts, tar_size
from library.files import file_pieces

TAR = "application/x-tar"

router = APIRouter(prefix="/v1/adapters", tags=["adapters"])


@router.head("/{id}/archive", include_in_schema=False)
@router.get(
    "/{id}/archive",
    response_class=Response,
    responses={
        200: {
            "description": "A tar with one folder, named by the id; its ETag is its SHA-256.",
            "content": {TAR: {"schema": {"type": "string", "format": "binary"}}},
        },
        304: {"description": "The client's copy is current."},
        **documented("not-found"),
    },
)
def get_archive(id: AdapterId, request: Request, service: ServiceOf, caller: CallerOf) -> Response:
    """Download all files of an adapter as one tar, the same bytes each time."""
    files = service.store.get(caller.sees, id)["files"]  # every digest is checked here
    sizes = {name: files[name]["bytes"] for name in sorted(files)}

    paths = [service.store.path(id, name) for name in sizes]

    def join(opened: Sequence[IO[bytes]]) -> Iterator[bytes]:
        return tar_parts(
            (f"{id}/{name}", size, file_pieces(file))
            for (name, size), file in zip(sizes.items(), opened, strict=True)
        )

    size = tar_size(sizes.values())
    return stream_response(request, paths, join, size, f"{id}.tar", TAR)
