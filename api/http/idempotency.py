"""Idempotency-Key: a request that is sent again gets the first one's answer, without the work.

After draft-ietf-httpapi-idempotency-key-header-07. Only answers of success are kept: after a
problem the same key may be tried again.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Annotated

from anyio import CancelScope, to_thread
from fastapi import Depends, Header, Request, Response

from api.errors import StorageFailed
from api.http.dependencies import CallerOf, ServiceOf
from api.http.downloads import BYTES, wants_bytes
from api.service.replies import KEPT_SECONDS, MAX_REPLIES, Reply
from library.canonical import digest, json_digest
from library.peft.write import WEIGHTS_FILE

KEYED = ("idempotency-key-reused", "idempotency-key-in-use")  # problems of routes that take a key
_HEADERS = ("location", "x-adapter-id", "content-type")

Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern="^[ -~]{1,255}$",
        description="Your own name for this request: for "
        f"{KEPT_SECONDS // 3600} hours the same request with it gets the same answer. The last "
        f"{MAX_REPLIES:,} are kept.",
    ),
]


class Once:
    """Answers a request, unless it was answered under the same Idempotency-Key."""

    def __init__(
        self, request: Request, service: ServiceOf, caller: CallerOf, key: Key = None
    ) -> None:
        self._request, self._service, self._caller = request, service, caller
        self._key = key

    async def __call__(
        self, work: Callable[[], Awaitable[Response]], sha256: str | None = None
    ) -> Response:
        """The answer of the first request, or of `work`.

        Args:
            sha256: of the body; None for a body that can still be read.
        Raises KeyReused, KeyInUse, StorageFailed, and as `work` does.
        """
        if self._key is None:
            return await work()
        fingerprint = json_digest(
            [
                self._request.url.path,
                wants_bytes(self._request.headers.get("accept", "")),
                sha256 or digest(await self._request.body()),
            ]
        )
        replies, named = self._service.replies, (self._caller.owner, self._key)
        reply = await to_thread.run_sync(replies.begin, *named, fingerprint)
        if reply is not None:
            return await to_thread.run_sync(self._repeated, reply)
        try:
            response = await work()
            # The work is done: its answer is worth more than the key, if that cannot be kept.
            with CancelScope(shield=True), suppress(StorageFailed):
                keep = partial(replies.keep, *named, fingerprint, _reply(response))
                await to_thread.run_sync(keep)
            return response
        finally:
            with CancelScope(shield=True):
                await to_thread.run_sync(replies.end, *named)

    def _repeated(self, reply: Reply) -> Response:
        """Raises NotFound if it is the weights of an adapter that is there no more."""
        content = reply.body
        if content is None:
            identity = reply.headers["x-adapter-id"]
            content, _ = self._service.store.read(self._caller.sees, identity, WEIGHTS_FILE)
        return Response(content, reply.status, reply.headers)


OnceOf = Annotated[Once, Depends()]


def _reply(response: Response) -> Reply:
    headers = {name: response.headers[name] for name in _HEADERS if name in response.headers}
    body = None if headers["content-type"] == BYTES else bytes(response.body)
    return Reply(response.status_code, headers, body)
