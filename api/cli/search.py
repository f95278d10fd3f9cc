"""`lorasmith search`: find adapters of a library by text or by another adapter."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

import lorasmith
from api.cli.console import progress_bar
from api.cli.index import Encoder, WeightEncoderFolder
from api.cli.library_list import SHIPPED_LIBRARY, Location, note
from library.errors import MissingPath, UsageError
from library.quiet import quiet_libraries


def search_command(
    query: Annotated[
        str,
        typer.Argument(
            help="Description of a task, - to read it from stdin, or path of an adapter folder."
        ),
    ],
    library: Location = SHIPPED_LIBRARY,
    adapter: Annotated[
        Path | None, typer.Option(help="Adapter folder to search by, together with the text.")
    ] = None,
    by: Annotated[
        Literal["description", "weights"] | None,
        typer.Option(
            help="Compare the adapters' descriptions or their weights.",
            show_default="description for a text, weights for an adapter",
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", help="Maximum number of results.")] = 10,
    base: Annotated[str | None, typer.Option(help="Only adapters of this base model (id).")] = None,
    layout: Annotated[
        str | None, typer.Option(help="Only adapters of this layout (digest).")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Only adapters of this training recipe.")
    ] = None,
    license: Annotated[
        str | None, typer.Option(help="Only tasks with this licence, or class of licences.")
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option(help="Only tasks of this category; repeatable.")
    ] = None,
    encoder: Encoder = None,
    weight_encoder: WeightEncoderFolder = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Find adapters by description or by weights. Prints confidence, score, what was compared,
    id and task, best first.

    Example: lorasmith search "Say whether a review is positive." --library my-library -k 5
    """
    text, path = _text_and_adapter(query, adapter)
    quiet_libraries()
    with progress_bar("embedding", unit="adapter") as progress:
        results = lorasmith.search(
            text,
            adapter=path,
            library=library,
            by=by,
            k=k,
            base=base,
            layout=layout,
            recipe=recipe,
            license=license,
            tags=tag or (),
            encoder=encoder,
            weight_encoder=weight_encoder,
            progress=progress,
            note=note,
        )
    if as_json:
        typer.echo(json.dumps({"results": [result.to_dict() for result in results]}))
        return
    for result in results:
        sure = "   –" if result.confidence is None else f"{result.confidence:.2f}"
        typer.echo(f"{sure}  {result.score:.3f}  {result.by}  {result.id}  {result.task}")
    if not results and any((base, layout, recipe, license, tag)):
        note("no adapter of the library meets all of these conditions")


def _text_and_adapter(query: str, adapter: Path | None) -> tuple[str | None, Path | None]:
    """The text and the adapter's path. A query that exists, or looks like a path, is one; that of
    a pipe, or `-`, is read as text.
    """
    looks_like_path = query.startswith(("/", "./", "../")) or query.endswith(".safetensors")
    exists = len(query) < 1024 and "\0" not in query and os.path.lexists(query)
    if query == "-" or (exists and Path(query).is_fifo()):
        return (sys.stdin.read() if query == "-" else Path(query).read_text("utf-8")), adapter
    if not exists and not (looks_like_path and not any(map(str.isspace, query))):
        return query, adapter
    if adapter is not None:
        raise UsageError(f"give a text beside --adapter, not a second adapter: {query}")
    if not os.path.exists(query):
        raise MissingPath(f"there is no adapter at {query}")
    return None, Path(query)
