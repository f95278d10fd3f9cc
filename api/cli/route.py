"""`lorasmith route`: export adapters for routers of other programs."""

from pathlib import Path
from typing import Annotated

import typer

from api.cli.library_list import SHIPPED_LIBRARY, CatalogueUrl, Location, catalogue_at
from library.files import require_absent, require_kind, write_folder

route = typer.Typer(
    no_args_is_help=False,
    rich_markup_mode=None,
    help="Export adapters for a router to choose from.",
)


@route.command("export")
def export_route(
    identities: Annotated[
        list[str], typer.Argument(help="Adapters of the library, two or more: ids or task names.")
    ],
    out: Annotated[Path, typer.Option(help="Output folder.")],
    library: Location = SHIPPED_LIBRARY,
    catalogue: CatalogueUrl = None,
    top_k: Annotated[
        int | None,
        typer.Option(help="Experts per token.", show_default="3, or 2 of two"),
    ] = None,
    temperature: Annotated[
        float, typer.Option(help="Temperature of the softmax over experts.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of PEFT's power iteration.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the folder.")] = False,
) -> None:
    """Export adapters of a library as experts for PEFT's Arrow router, which needs no training.

    Example: lorasmith route export task1332_check_leap_year task092_check_prime_classification
    --top-k 2 --out my-experts
    """
    require_absent(out, overwrite)
    require_kind(out, folder=True)
    from index.routing import arrow_set
    from library.store.catalogue import find

    opened = catalogue_at(library, catalogue)
    records = [find(opened, identity) for identity in identities]
    layout = opened.folder.plan().layout
    files = arrow_set(
        opened.folder, records, layout, top_k=top_k, temperature=temperature, seed=seed
    )
    write_folder(out, files, overwrite=overwrite)
    typer.echo(f"{len(records)} experts  {out}")
