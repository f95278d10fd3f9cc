"""`lorasmith serve`: the REST service."""

from typing import Annotated

import typer


def serve(
    host: Annotated[str, typer.Option(help="Loopback only, until there are keys.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8000,
) -> None:
    """Serve adapters over HTTP; stop with Ctrl-C.

    Example: lorasmith serve --port 8000
    """
    from api.app import serve as run
    from api.console import quiet_libraries
    from api.settings import Settings, require_loopback

    require_loopback(host)
    quiet_libraries()
    run(Settings(host=host, port=port))
