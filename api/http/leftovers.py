"""What a client sends that nobody reads: dropped for a while before its connection is closed.

A client that is still sending when the connection closes may lose the answer.
"""

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.body import MAX_BODY_BYTES

DROPPED_BYTES = 16 * MAX_BODY_BYTES
DROPPING_SECONDS = 2.0
TOO_SLOW = 408


def after_body(app: ASGIApp) -> ASGIApp:
    """An application whose answers begin once the body has come, within these limits.

    Who sent the body too slowly is not waited for again.
    """

    async def answer_after_body(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        whole = False

        async def noting() -> Message:
            nonlocal whole
            message = await receive()
            whole = whole or not message.get("more_body", False)  # also where the client has left
            return message

        async def drop() -> None:
            dropped = 0
            with anyio.move_on_after(DROPPING_SECONDS):
                while not whole and dropped <= DROPPED_BYTES:
                    dropped += len((await noting()).get("body", b""))

        async def send_after(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] != TOO_SLOW:
                await drop()
            await send(message)

        await app(scope, noting, send_after)

    return answer_after_body
