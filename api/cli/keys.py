"""`lorasmith keys`: who may use a REST service."""

import json
import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from library.files import data_dir

if TYPE_CHECKING:
    from api.service.keys import Key, KeyStore

keys = typer.Typer(help="Make, list and revoke keys of the REST service.", rich_markup_mode=None)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@keys.command("create")
def create_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is called in lists.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(help="read, write or admin; may be repeated (default: read and write)."),
    ] = None,
    quota_bytes: Annotated[
        int | None, typer.Option(help="Limit for the files of its adapters (default: none).")
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option(help="Its requests a second, minute, hour or day, as 60/minute."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a key and show it once.

    From the first key on, every request to the service needs one.

    Example: lorasmith keys create laptop --scope read --scope write --rate 60/minute
    """
    from api.service.keys import USUAL

    key, text = _keys().create(name, scope or USUAL, quota_bytes, rate)
    if as_json:
        _print({**key.to_dict(), "key": text})
        return
    typer.echo(text)
    typer.echo(f"the id of this key is {key.id}; the key itself is not shown again", err=True)


@keys.command("list")
def list_command(as_json: Json = False) -> None:
    """One line a key: id, scopes, when it was made, limits, name.

    Example: lorasmith keys list
    """
    found = _keys().all()
    if as_json:
        _print({"keys": [key.to_dict() for key in found]})
        return
    for key in found:
        typer.echo(_line(key))


@keys.command("revoke")
def revoke_command(
    identity: Annotated[str, typer.Argument(metavar="ID", help="As keys list shows it.")],
    as_json: Json = False,
) -> None:
    """Revoke a key for good, at once.

    Also a service that runs refuses it from now on; its adapters stay.

    Example: lorasmith keys revoke 0f3a5c7e9b1d2468
    """
    key = _keys().revoke(identity)
    if as_json:
        _print(key.to_dict())
    else:
        typer.echo(_line(key))


def _keys() -> "KeyStore":
    from api.service.keys import KeyStore

    return KeyStore(data_dir(), os.environ.get("LORASMITH_DATABASE"))


def _line(key: "Key") -> str:
    """A key in a line, for a person."""
    state = "active" if key.revoked is None else f"revoked {key.revoked}"
    limits = [] if key.quota_bytes is None else [f"{key.quota_bytes:,} bytes"]
    limits += [] if key.rate is None else [key.rate]
    words = [key.id, ",".join(key.scopes), f"made {key.created}", state, *limits, key.name]
    return "  ".join(words)


def _print(content: dict[str, Any]) -> None:
    typer.echo(json.dumps(content))
