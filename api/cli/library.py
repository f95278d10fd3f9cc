"""`lorasmith library`: build a library of adapters, and look after it."""

import json
from pathlib import Path
from typing import Annotated

import typer

from api.cli.library_add import add_command
from api.cli.library_build import build_command
from api.cli.library_list import (
    SHIPPED_LIBRARY,
    CatalogueUrl,
    Location,
    catalogue_at,
    list_adapters,
    note,
)
from library.files import require_absent

library = typer.Typer(help="Build a library of adapters, list and check it.", rich_markup_mode=None)
library.command("build")(build_command)
library.command("add")(add_command)
library.command("list")(list_adapters)


@library.command("show")
def library_show(
    identity: Annotated[str, typer.Argument(help="Id or task.")],
    location: Location = SHIPPED_LIBRARY,
    catalogue: CatalogueUrl = None,
) -> None:
    """An adapter's whole record, as JSON.

    Example: lorasmith library show task001_x --library my-library
    """
    from library.store.catalogue import find

    record = find(catalogue_at(location, catalogue), identity)
    typer.echo(json.dumps(record, indent=1, ensure_ascii=False))


@library.command("pack")
def library_pack(
    location: Location,
    out: Annotated[Path, typer.Option(help="Folder for the packed library.")],
    task: Annotated[list[str] | None, typer.Option(help="Only this task's; repeatable.")] = None,
    rank: Annotated[int | None, typer.Option(min=1, max=256, help="Cut each to this rank.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the folder.")] = False,
) -> None:
    """Write a library as three small files, adapters as int8 rows: the form that ships.

    Example: lorasmith library pack --library my-library --out small --rank 2
    """
    require_absent(out, overwrite)
    from library.store.open import open_library
    from library.store.packed import pack_library

    count = pack_library(open_library(location), out, task or (), rank=rank, overwrite=overwrite)
    size = sum(file.stat().st_size for file in out.iterdir())
    typer.echo(f"{count} adapters, {size / 1e6:.2f} MB  {out}")


@library.command("remove")
def library_remove(
    identity: Annotated[str, typer.Argument(help="Id or task.")],
    location: Location,
    catalogue: CatalogueUrl = None,
) -> None:
    """Take an adapter out of the library.

    Example: lorasmith library remove ad_0123 --library my-library
    """
    from library.store.catalogue import remove_adapter

    record = remove_adapter(catalogue_at(location, catalogue, write=True), identity)
    typer.echo(f"removed {record['id']} ({record['task']})")


@library.command("check")
def library_check(location: Location = SHIPPED_LIBRARY, catalogue: CatalogueUrl = None) -> None:
    """Hash every file again; name what is damaged or missing, and exit 1 if anything is.

    Example: lorasmith library check --library my-library
    """
    from library.store.catalogue import check_library, surplus
    from library.store.records import Selection

    opened = catalogue_at(location, catalogue)
    problems, adapters = check_library(opened), len(opened.entries(Selection()))
    for problem in problems:
        typer.echo(problem, err=True)
    for sentence in surplus(opened):
        note(sentence)
    typer.echo(f"{adapters} adapters, {len(problems) or 'none'} damaged or incomplete")
    if problems:
        raise typer.Exit(1)
