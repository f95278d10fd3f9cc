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
    adapters take time.

    Example: lorasmith index build --library my-library
    """
    import torch

    from index.encoders.descriptions import DEFAULT_ENCODER, DescriptionEncoder
    from index.encoders.weights import load_weight_encoder
    from index.search.sources import DescriptionSource, WeightSource
    from index.search.sync import build_index, left_out
    from library.store.open import open_library

    open_library(library)
    quiet_libraries()
    weights = WeightSource(load_weight_encoder(weight_encoder))
    descriptions = DescriptionEncoder(encoder or DEFAULT_ENCODER, dtype=torch.float32)
    with progress_bar("embedding", unit="adapter") as progress:
        built = build_index(library, DescriptionSource(descriptions), progress, note)
    typer.echo(f"{len(built.view)} adapters, {built.view.rows} vectors  {built.location}")
    with progress_bar("reading weights", unit="adapter") as progress:
        built = build_index(library, weights, progress, note)
    typer.echo(f"{len(built.view)} adapters by their weights  {built.location}")
    for reason, count in left_out(built, open_library(library), weights).most_common():
        typer.echo(f"{count} left out: {reason}")


def follow_own_indexes(location: str) -> None:
    """Bring those indexes up to date that a library has of its own.

    Search follows the library by itself, and makes an index where there is none; this spares it
    the time. One that another encoder made is left, with a note.
    """
    import torch

    from index.encoders.descriptions import DEFAULT_ENCODER, DescriptionEncoder
    from index.encoders.weights import load_weight_encoder
    from index.search.sources import DescriptionSource, WeightSource
    from index.search.sync import has_own_index, open_index
    from index.segments.snapshot import EncoderMismatch, IndexDamaged

    def descriptions() -> DescriptionSource:
        return DescriptionSource(DescriptionEncoder(DEFAULT_ENCODER, dtype=torch.float32))

    def by_weights() -> WeightSource:
        return WeightSource(load_weight_encoder())

    made = {DescriptionSource.folder: descriptions, WeightSource.folder: by_weights}
    for name, source in made.items():
        if has_own_index(location, name):
            try:
                with progress_bar("indexing", unit="adapter") as progress:
                    open_index(location, source(), progress, note)
            except (EncoderMismatch, IndexDamaged) as error:
                note(f"{error}")
