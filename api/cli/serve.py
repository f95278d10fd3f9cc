"""`lorasmith serve`: the REST service."""

from typing import Annotated

import typer


def serve_command(
    host: Annotated[str | None, typer.Option(help="Loopback only, until there are keys.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Default 8000.")] = None,
    library: Annotated[str | None, typer.Option(help="Default: the shipped sample.")] = None,
) -> None:
    """Serve adapters over HTTP; stop with Ctrl-C. Settings come from LORASMITH_* as well.

    Example: lorasmith serve --port 8000
    """
    from api.cli.console import quiet_libraries
    from api.http.app import run_server
    from api.service.settings import load_settings
    from library.store.open import open_library

    given = {"host": host, "port": port, "library": library}
    settings = load_settings(**{name: v for name, v in given.items() if v is not None})
    if library is not None:
        open_library(library)
    quiet_libraries()
    run_server(settings)
