"""`lorasmith index`: make a library's adapters searchable."""

from pathlib import Path
from typing import Annotated

import typer

from api.cli.console import progress_bar, quiet_libraries
from api.cli.library_list import SHIPPED, Place, note

index = typer.Typer(help="Make or bring up to date a library's index.", rich_markup_mode=None)

Encoder = Annotated[
    str | None,
    typer.Option(help="A sentence-transformers id or folder.", show_default="the offline default"),
]
WeightEncoderFolder = Annotated[
    Path | None,
    typer.Option(
        "--weight-encoder",
        help="Folder of a trained weight encoder.",
        show_default="the shipped one",
    ),
]


@index.callback()
def _commands() -> None:
    """A group, though it has one command so far."""


@index.command("build")
def index_build(
    place: Place = SHIPPED, encoder: Encoder = None, weight_encoder: WeightEncoderFolder = None
) -> None:
    """Embed every adapter's descriptions and weights and write LIB/index; only what is new
    takes time.

    Example: lorasmith index build --library my-library
    """
    import torch

    from index.encoders.descriptions import DEFAULT_ENCODER, DescriptionEncoder
    from index.encoders.weights import load_weight_encoder
    from index.search.sources import DescriptionSource, WeightSource
    from index.search.sync import build_index
    from library.store.open import open_library

    open_library(place)
    quiet_libraries()
    weights = WeightSource(load_weight_encoder(weight_encoder))
    model = DescriptionEncoder(encoder or DEFAULT_ENCODER, dtype=torch.float32)
    with progress_bar("embedding", unit="adapter") as progress:
        made = build_index(place, DescriptionSource(model), progress, note)
    typer.echo(f"{len(made.state)} adapters, {made.state.rows} vectors  {made.place}")
    with progress_bar("reading weights", unit="adapter") as progress:
        made = build_index(place, weights, progress, note)
    typer.echo(f"{len(made.state)} adapters by their weights  {made.place}")
