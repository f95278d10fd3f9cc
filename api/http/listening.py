"""What every service starts with: a socket, the line that says so, and no telemetry."""

import socket
import sys

from fastapi.telemetry import TelemetryConfig

from api.errors import ListenError

# Requests are their senders' business: nothing is exported, whatever the environment says.
NO_TELEMETRY = TelemetryConfig(
    tracing=False, metrics=False, logs=False, operation_spans=False, auto_configure=False
)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket: early connections wait while the application starts.

    Raises ListenError: the address is taken, foreign or not permitted.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise ListenError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    return listener


def announce(listener: socket.socket) -> None:
    """Say on stderr where a service listens; port 0 has become a real one by now."""
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(f"listening on http://{shown}:{port}; Ctrl-C stops", file=sys.stderr, flush=True)
