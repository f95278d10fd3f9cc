"""`POST /v1/adapters/import`: an adapter from elsewhere, sent as a tar."""

import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from anyio import to_thread
from fastapi import APIRouter, Request, Response

from api.errors import NotTar, StorageFailed
from api.http.answers import CREATED, created
from api.http.archive import TAR
from api.http.body import limited, media_type
from api.http.dependencies import CallerOf, ServiceOf
from api.http.idempotency import KEYED, OnceOf
from api.http.problems import BUSY, documented
from api.http.schemas import AdapterAnswer
from api.service.uploads import FILES

router = APIRouter(prefix="/v1/adapters", tags=["adapters"])


@router.post(
    "/import",
    status_code=201,
    response_model=AdapterAnswer,
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": f"An uncompressed tar of {', '.join(FILES)}, as far as there are any, "
            "in one folder or none; as /v1/adapters/{id}/archive gives it.",
            "content": {TAR: {"schema": {"type": "string", "format": "binary"}}},
        }
    },
    responses={
        **CREATED,
        **documented(
            *BUSY,
            *KEYED,
            "malformed-body",
            "body-too-slow",
            "body-too-large",
            "not-tar",
            "layout-mismatch",
            "conflict",
            "refused",
            "internal",
            "quota-exceeded",
            "storage-failed",
        ),
    },
)
async def import_adapter_files(
    request: Request, service: ServiceOf, caller: CallerOf, once: OnceOf
) -> Response:
    """Import an adapter in PEFT's form: LoRA and what was trained beside it.

    One that lorasmith made keeps its id and its bytes; another gets a provenance that says that it
    was imported. The quick hooks have to accept it.
    """
    if media_type(request.headers.get("content-type", "")) != TAR:
        raise NotTar(f"the body must have the Content-Type {TAR}")
    limit, folder = service.settings.import_bytes, service.settings.data
    with service.uploads.place():
        async with _received(request, limit, folder) as (file, sha256):

            async def take_in() -> Response:
                adapter = await service.import_adapter(caller, file)
                return await created(request, service, caller, adapter)

            return await once(take_in, sha256)


@asynccontextmanager
async def _received(
    request: Request, limit: int, folder: Path
) -> AsyncIterator[tuple[IO[bytes], str]]:
    """The body in a file without a name, which is gone with the answer, and its SHA-256.

    Raises BodyTooLarge, BodyTooSlow, StorageFailed.
    """
    sha256 = hashlib.sha256()
    with ExitStack() as stack:
        with _storing():
            folder.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(TemporaryFile(dir=folder))
            async for chunk in limited(request, limit):
                sha256.update(chunk)
                await to_thread.run_sync(file.write, chunk)
            file.seek(0)
        yield file, sha256.hexdigest()


@contextmanager
def _storing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageFailed(f"the upload cannot be stored: {error.strerror}") from error
