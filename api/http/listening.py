"""Start of a service: its socket, the line that announces it, and what is logged."""

import logging
import socket
import sys

from fastapi.telemetry import TelemetryConfig

from api.errors import ListenError

# Requests are private: nothing is exported, whatever the environment says.
NO_TELEMETRY = TelemetryConfig(
    tracing=False, metrics=False, logs=False, operation_spans=False, auto_configure=False
)


class WithoutQueries(logging.Filter):
    """Keeps queries out of uvicorn's access log, as they hold descriptions, which are private."""

    def filter(self, record: logging.LogRecord) -> bool:
        match record.args:
            case (client, method, str(target), *others):
                record.args = (client, method, target.partition("?")[0], *others)
        return True


def listen(host: str, port: int) -> socket.socket:
    """A listening socket: early connections wait while the application starts.

    Raises ListenError: the address is in use, not this machine's or not permitted.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named for asyncio, which else leaves it to TCP to wait before it sends what
    # is short: 40 ms an answer, on connections that are kept.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise ListenError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    return listener


def announce(listener: socket.socket) -> None:
    """Print the addresses of the service and its page; port 0 has been replaced by the real one."""
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(f"listening on http://{shown}:{port}; Ctrl-C stops", file=sys.stderr)
    print(f"the page is http://{shown}:{port}/", file=sys.stderr, flush=True)
