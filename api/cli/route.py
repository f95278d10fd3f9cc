"""`lorasmith route`: sets of adapters for routers of other programs."""

from pathlib import Path
from typing import Annotated

import typer

from api.cli.library_list import SHIPPED, CatalogueUrl, Place, catalogue_at
from library.files import require_absent, require_kind, write_folder

route = typer.Typer(
    no_args_is_help=False,
    rich_markup_mode=None,
    help="Sets of adapters that a router chooses from.",
)


@route.callback()
def _several() -> None:
    """Keeps `export` a subcommand."""


@route.command("export")
def export_route(
    identities: Annotated[list[str], typer.Argument(help="Ids or tasks, two or more.")],
    out: Annotated[Path, typer.Option(help="Folder for the set.")],
    place: Place = SHIPPED,
    catalogue: CatalogueUrl = None,
    top_k: Annotated[
        int | None, typer.Option(help="Experts a token is routed to; default: 3, or all of two.")
    ] = None,
    temperature: Annotated[float, typer.Option(help="Of the softmax over experts.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Of PEFT's power iteration.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the folder.")] = False,
) -> None:
    """Write adapters of a library as experts of PEFT's Arrow, which needs no training.

    Example: lorasmith route export task1332_check_leap_year task092_check_prime_classification
    --top-k 2 --out my-experts
    """
    require_absent(out, overwrite)
    require_kind(out, folder=True)
    from index.arrow import arrow_set
    from library.store.catalogue import find

    found = catalogue_at(place, catalogue)
    records = [find(found, identity) for identity in identities]
    layout = found.folder.plan().layout
    chosen = min(3, len(records)) if top_k is None else top_k
    files = arrow_set(
        found.folder, records, layout, top_k=chosen, temperature=temperature, seed=seed
    )
    write_folder(out, files, overwrite=overwrite)
    typer.echo(f"{len(records)} experts  {out}")
