"""`lorasmith names`: the names of this machine's adapters."""

import json
from typing import Annotated

import typer

from api.cli.publish import Json, local_names, move_line

names = typer.Typer(help="List, show and delete names of adapters.", rich_markup_mode=None)

Named = Annotated[str, typer.Argument(metavar="NAME", help="As names list shows it.")]


@names.command("list")
def names_list_command(as_json: Json = False) -> None:
    """One line a name: its current version and its newest.

    Example: lorasmith names list
    """
    from api.service.store import LOCAL

    found = [name.summary() for name in local_names().all(LOCAL)]
    if as_json:
        typer.echo(json.dumps({"names": found}))
        return
    for name in found:
        current = "none" if name["current"] is None else f"v{name['current']}"
        typer.echo(f"{name['name']}  current {current}  newest v{name['newest']}")


@names.command("show")
def names_show_command(name: Named, as_json: Json = False) -> None:
    """The versions of a name, its suite and its history.

    Example: lorasmith names show support-router
    """
    from api.service.store import LOCAL

    found = local_names().get(LOCAL, name)
    if as_json:
        typer.echo(json.dumps(found.to_dict()))
        return
    for version in found.versions:
        mark = "  current" if version == found.current else ""
        typer.echo(f"{name}@v{version.number}  {version.adapter}  {version.created}{mark}")
    suite = "no suite" if found.suite is None else f"a suite of {len(found.suite.rows)} rows"
    typer.echo(f"  {suite}")
    for move in found.history:
        typer.echo(f"  {move.time}  {move_line(name, move)}")


@names.command("delete")
def names_delete_command(name: Named, as_json: Json = False) -> None:
    """Delete a name with its suite and history; its adapters stay.

    Example: lorasmith names delete support-router
    """
    from api.service.store import LOCAL

    local_names().delete(LOCAL, name)
    typer.echo(json.dumps({"name": name}) if as_json else f"{name} is deleted")
