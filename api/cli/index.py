"""`lorasmith index`: make a library's adapters searchable."""

from pathlib import Path
from typing import Annotated

import typer

from api.cli.console import progress_bar
from api.cli.library_list import SHIPPED_LIBRARY, Location, note
from library.quiet import quiet_libraries

index = typer.Typer(help="Build or update the search index of a library.", rich_markup_mode=None)

Encoder = Annotated[
    str | None,
    typer.Option(
        help="Description encoder: a sentence-transformers id or folder.",
        show_default="all-MiniLM-L6-v2, offline",
    ),
]
WeightEncoderFolder = Annotated[
    Path | None,
    typer.Option(
        "--weight-encoder",
        help="Folder of a trained weight encoder.",
        show_default="the shipped one",
    ),
]


@index.command("build")
def index_build(
    library: Location = SHIPPED_LIBRARY,
    encoder: Encoder = None,
    weight_encoder: WeightEncoderFolder = None,
) -> None:
    """Build or update the search index in LIB/index, of descriptions and of weights. Only new
    adapters take time. For other bases than the weight encoder's, one is fitted to the library's
    own adapters.

    Example: lorasmith index build --library my-library
    """
    import torch

    from index.encoders.descriptions import DEFAULT_ENCODER, DescriptionEncoder
    from index.encoders.weights import load_weight_encoder
    from index.search.own_encoders import fit_own_encoders, own_source
    from index.search.sources import DescriptionSource, WeightSource
    from index.search.sync import build_index
    from library.store.open import open_library

    open_library(library)
    quiet_libraries()
    weights = WeightSource(load_weight_encoder(weight_encoder))
    descriptions = DescriptionEncoder(encoder or DEFAULT_ENCODER, dtype=torch.float32)
    with progress_bar("embedding", unit="adapter") as progress:
        built = build_index(library, DescriptionSource(descriptions), progress, note)
    typer.echo(f"{len(built.view)} adapters, {built.view.rows} vectors  {built.location}")
    own = [own_source(library, n) for n in fit_own_encoders(library, weights.encoder, descriptions)]
    for source in (weights, *own):
        with progress_bar("reading weights", unit="adapter") as progress:
            built = build_index(library, source, progress, note)
        if source is weights or len(built.view):
            typer.echo(f"{len(built.view)} adapters by their weights  {built.location}")
