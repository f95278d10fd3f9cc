"""`lorasmith index`: make a library's adapters searchable."""

from typing import Annotated

import typer

from api.commands.library_list import SHIPPED, Place, note
from api.console import progress_bar, quiet_libraries

index = typer.Typer(help="Make or bring up to date a library's index.", rich_markup_mode=None)

Encoder = Annotated[
    str | None,
    typer.Option(help="A sentence-transformers id or folder.", show_default="the offline default"),
]


@index.callback()
def _commands() -> None:
    """A group, though it has one command so far."""


@index.command()
def build(place: Place = SHIPPED, encoder: Encoder = None) -> None:
    """Embed every adapter's descriptions and write LIB/index; only what is new takes time.

    Example: lorasmith index build --library my-library
    """
    import torch

    from index.encoder import DEFAULT_ENCODER, DescriptionEncoder
    from index.library_index import build_index
    from library.catalogue import open_library

    open_library(place)
    quiet_libraries()
    model = DescriptionEncoder(encoder or DEFAULT_ENCODER, dtype=torch.float32)
    with progress_bar("embedding", unit="adapter") as progress:
        made = build_index(place, model, progress, note)
    typer.echo(f"{len(made.state)} adapters, {made.state.rows} vectors  {made.place}")
