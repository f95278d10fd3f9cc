"""Headers that are added to answers on their way out, among them those for every answer."""

from collections.abc import Mapping

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cache-Control": "no-store",  # unless an answer says otherwise: what it holds is private
}


def adding(headers: Mapping[str, str], send: Send) -> Send:
    """`send`, with these headers wherever an answer has no such ones of its own."""

    async def send_more(message: Message) -> None:
        if message["type"] == "http.response.start":
            present = MutableHeaders(scope=message)
            for name, value in headers.items():
                present.setdefault(name, value)
        await send(message)

    return send_more


def safe(app: ASGIApp) -> ASGIApp:
    """An application whose every answer has the headers SAFE."""

    async def answer_safely(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, adding(SAFE, send))

    return answer_safely
