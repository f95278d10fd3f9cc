"""`lorasmith library list`, and how the other commands open a library's catalogue."""

import json
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lorasmith.libraries import SHIPPED_LIBRARY, load_library

if TYPE_CHECKING:
    from library.store.catalogue import Catalogue
    from library.store.folder import LibraryFolder


def _require_url(url: str | None) -> str | None:
    """Raise UsageError for a URL that cannot be a catalogue's, before anything is done."""
    if url is not None and find_spec("sqlalchemy"):
        from library.store.sql_database import database_url

        database_url(url)
    return url


Location = Annotated[
    str,
    typer.Option(
        "--library", help="Folder or URL of the library.", show_default="the shipped sample"
    ),
]
CatalogueUrl = Annotated[
    str | None,
    typer.Option(
        "--catalogue",
        callback=_require_url,
        envvar="LORASMITH_CATALOGUE",
        help="postgresql:// or sqlite:/// URL; default: a file in the library.",
    ),
]


def note(text: str) -> None:
    typer.echo(f"note: {text}", err=True)


def catalogue_at(location: str, url: str | None, *, write: bool = False) -> "Catalogue":
    """The catalogue of a library, up to date. Raises MissingPath, CatalogueError."""
    return load_library(location, catalogue=url, note=note, write=write).catalogue


def catalogue_of_build(folder: "LibraryFolder", url: str | None) -> None:
    """Bring the catalogue of what was built up to date; if that fails the library is still good."""
    from library.errors import CatalogueError
    from library.store.catalogue import open_catalogue

    try:
        open_catalogue(folder, url, note).refresh()
    except CatalogueError as error:
        note(f"{error}; the library is built, and the next command tries again")


def list_adapters(
    location: Location = SHIPPED_LIBRARY,
    catalogue: CatalogueUrl = None,
    task: Annotated[str | None, typer.Option(help="Its name, or a pattern with * and ?.")] = None,
    recipe: Annotated[str | None, typer.Option(help="How it was trained.")] = None,
    license_class: Annotated[str | None, typer.Option(help="Licence class of its task.")] = None,
    base: Annotated[str | None, typer.Option(help="Id of the base model.")] = None,
    rank: Annotated[int | None, typer.Option(min=1, help="Of the adapter.")] = None,
    sort: Annotated[
        Literal["task", "score", "created"], typer.Option(help="Best score or newest first.")
    ] = "task",
    limit: Annotated[int | None, typer.Option(min=0, help="How many at most.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """One line an adapter: id, score on its tune rows, task.

    Example: lorasmith library list --library my-library --task 'task1*' --sort score --limit 10
    """
    library = load_library(location, catalogue=catalogue, note=note)
    entries = library.adapters(task, recipe, license_class, base, rank, sort, limit)
    if as_json:
        typer.echo(json.dumps({"adapters": [entry.to_dict() for entry in entries]}))
        return
    for entry in entries:
        score = "     -" if entry.score is None else f"{entry.score:6.3f}"
        typer.echo(f"{entry.id}  {score}  {entry.task}")
