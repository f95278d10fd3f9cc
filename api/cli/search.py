"""`lorasmith search`: which adapters of a library are for a task."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from api.cli.console import progress_bar, quiet_libraries
from api.cli.index import Encoder, WeightEncoderFolder
from api.cli.library_list import SHIPPED, Place, note
from library.errors import MissingPath, UsageError

if TYPE_CHECKING:
    from index.search.searcher import Result


def search_command(
    query: Annotated[str, typer.Argument(help="A description, or an adapter's folder.")],
    place: Place = SHIPPED,
    adapter: Annotated[
        Path | None, typer.Option(help="Search by this adapter's folder as well as by the text.")
    ] = None,
    by: Annotated[
        Literal["description", "weights"] | None,
        typer.Option(
            help="What of the library's adapters is compared.",
            show_default="a text by description, an adapter by weights",
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", help="How many at most.")] = 10,
    base: Annotated[str | None, typer.Option(help="Id of the base model.")] = None,
    layout: Annotated[str | None, typer.Option(help="Digest of the layout.")] = None,
    recipe: Annotated[str | None, typer.Option(help="How it was trained.")] = None,
    license: Annotated[str | None, typer.Option(help="Licence, or class of licences.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Category of its task; repeatable.")] = None,
    encoder: Encoder = None,
    weight_encoder: WeightEncoderFolder = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Find adapters by what they are for, or by what their weights do: confidence, score, what
    was compared, id and task of each, best first.

    Example: lorasmith search "Say whether a review is positive." --library my-library -k 5
    """
    from index.encoders.descriptions import DEFAULT_ENCODER, DescriptionEncoder, normalise
    from index.encoders.weights import load_weight_encoder
    from index.segments.metadata import Filter
    from index.segments.view import require_k
    from library.peft.folder import read_adapter_folder
    from library.store.open import open_library

    require_k(k)
    text, file = _text_and_adapter(query, adapter)
    text = None if text is None else normalise(text)
    files = None if file is None else read_adapter_folder(file)
    open_library(place)
    quiet_libraries()
    from index.search.searcher import Searcher

    wanted = Filter(base, layout, recipe, license, tuple(tag or ()))
    with progress_bar("embedding", unit="adapter") as progress:
        found = Searcher(
            place,
            lambda: DescriptionEncoder(encoder or DEFAULT_ENCODER),
            lambda: load_weight_encoder(weight_encoder),
            progress=progress,
            note=note,
        ).search(text, files, by=by, k=k, wanted=wanted)
    if as_json:
        typer.echo(json.dumps({"results": [result.to_dict() for result in found]}))
        return
    _show(found)
    if not found and wanted.conditions:
        note("the library holds no adapter that is all of this")


def _show(found: "Sequence[Result]") -> None:
    for result in found:
        typer.echo(
            f"{result.confidence:.2f}  {result.score:.3f}  {result.by}  {result.id}  {result.task}"
        )


def _text_and_adapter(query: str, adapter: Path | None) -> tuple[str | None, Path | None]:
    """What to search by. What exists, or is written as a path, is one."""
    written = query.startswith(("/", "./", "../")) or query.endswith(".safetensors")
    is_path = len(query) < 1024 and "\0" not in query and os.path.lexists(query)
    if not is_path and not (written and not any(map(str.isspace, query))):
        return query, adapter
    if adapter is not None:
        raise UsageError(f"give a text beside --adapter, not a second adapter: {query}")
    path = Path(query)
    if not os.path.exists(path):
        raise MissingPath(f"there is no adapter at {query}")
    return None, path
