"""`lorasmith index`: make a library's adapters searchable."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.cli.console import progress_bar
from api.cli.library_list import SHIPPED_LIBRARY, Location, note
from library.quiet import quiet_libraries

if TYPE_CHECKING:
    from index.search.sources import VectorSource

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
    from index.search.sync import build_index, left_out
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
    from index.search.own_encoders import own_encoder_names, own_index, own_source
    from index.search.sources import WEIGHTS, DescriptionSource, WeightSource
    from index.search.sync import has_own_index, open_index
    from index.segments.snapshot import EncoderMismatch, IndexDamaged

    def descriptions() -> DescriptionSource:
        return DescriptionSource(DescriptionEncoder(DEFAULT_ENCODER, dtype=torch.float32))

    def by_weights() -> WeightSource:
        return WeightSource(load_weight_encoder())

    sources: dict[str, Callable[[], "VectorSource"]] = {
        DescriptionSource.folder: descriptions,
        WEIGHTS: by_weights,
    }
    for name in own_encoder_names(location):
        sources[own_index(name)] = partial(own_source, location, name)
    for name, source in sources.items():
        if has_own_index(location, name):
            try:
                with progress_bar("indexing", unit="adapter") as progress:
                    open_index(location, source(), progress, note)
            except (EncoderMismatch, IndexDamaged) as error:
                note(f"{error}")
