"""Headers that are added to answers on their way out."""

from collections.abc import Mapping

from starlette.datastructures import MutableHeaders
from starlette.types import Message, Send


def adding(headers: Mapping[str, str], send: Send) -> Send:
    """`send`, with these headers wherever an answer has no such ones of its own."""

    async def send_more(message: Message) -> None:
        if message["type"] == "http.response.start":
            present = MutableHeaders(scope=message)
            for name, value in headers.items():
                present.setdefault(name, value)
        await send(message)

    return send_more
