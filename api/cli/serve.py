"""`lorasmith serve`: the REST service."""

from typing import Annotated

import typer


def serve_command(
    host: Annotated[
        str | None,
        typer.Option(
            help="Address to listen on (default: 127.0.0.1); others than loopback take keys."
        ),
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port to listen on (default: 8000).")
    ] = None,
    library: Annotated[
        str | None, typer.Option(help="Folder or URL of the library (default: the shipped sample).")
    ] = None,
) -> None:
    """Serve adapters over HTTP until Ctrl-C; docs/rest.md lists further LORASMITH_* settings.

    Example: lorasmith serve --port 8000
    """
    from api.http.app import run_server
    from api.service.settings import load_settings
    from library.quiet import quiet_libraries
    from library.store.open import open_library

    options = {"host": host, "port": port, "library": library}
    settings = load_settings(**{name: v for name, v in options.items() if v is not None})
    if library is not None:
        open_library(library)
    quiet_libraries()
    run_server(settings)
