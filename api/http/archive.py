"""`/v1/adapters/{id}/archive`: all files of an adapter in one tar."""

from collections.abc import Iterator

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

    def parts() -> Iterator[bytes]:
        return tar_parts(
            (f"{id}/{name}", size, file_pieces(service.store.path(id, name)))
            for name, size in sizes.items()
        )

    return stream_response(request, parts, tar_size(sizes.values()), f"{id}.tar", TAR)
