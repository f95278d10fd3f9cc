"""`lorasmith library import` and `export`: adapters from elsewhere, and back."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from api.cli.console import progress_bar
from api.cli.index import follow_own_indexes
from api.cli.library_list import SHIPPED_LIBRARY, CatalogueUrl, Location, catalogue_at
from library.errors import UsageError
from library.files import require_absent, write_folder
from library.quiet import quiet_libraries

if TYPE_CHECKING:
    from library.exchange.importing import ImportRequest

Profile = Literal["portable", "lossless"]
Format = Literal["peft", "diffusers", "kohya", "xlabs"]


def import_command(
    source: Annotated[
        str, typer.Argument(help="PEFT folder, LoRA file, Hub id, or a .jsonl list of them.")
    ],
    location: Location,
    base: Annotated[str | None, typer.Option(help="Base model, where SOURCE is silent.")] = None,
    task: Annotated[str | None, typer.Option(help="Name; default: the source's.")] = None,
    description: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    license: Annotated[str | None, typer.Option(help="Of the adapter.")] = None,
    license_class: Annotated[str, typer.Option(help="Of the licence.")] = "",
    rank: Annotated[int, typer.Option(min=1, max=256, help="Of a converted adapter.")] = 8,
) -> None:
    """Put adapters into a library: PEFT, diffusers, kohya or XLabs, safetensors only. A list has
    one a line, {"source": PATH, "task": NAME, "description": TEXT, …}.

    Example: lorasmith library import my-adapter --library my-library --description "Say yes or no."
    """
    quiet_libraries()
    from index.encoders.descriptions import normalise
    from library.exchange.import_list import LIST_SUFFIX, import_requests
    from library.exchange.importing import ImportRequest
    from library.exchange.source import find_source
    from verification.run import require_sound

    request = ImportRequest(source, base, task, description, license, license_class, rank)
    listed = source.endswith(LIST_SUFFIX)
    if listed and (task or description):
        raise UsageError("a list's lines say task and description, not the options")
    requests = import_requests(Path(source), request) if listed else [request]
    requests = [
        replace(r, description=None if r.description is None else normalise(r.description))
        for r in requests
    ]
    for request in requests:  # all, before the first is stored
        require_sound(find_source(request.source), request.source)
    for request in requests:
        _import(location, request)
    follow_own_indexes(location)


def _import(location: str, request: "ImportRequest") -> None:
    """Import one adapter and say so."""
    from library.exchange.importing import import_adapter
    from library.store.folder import LibraryFolder
    from verification.run import reported

    with progress_bar("importing", unit="module") as progress:
        done = import_adapter(
            LibraryFolder(location), request, progress, lambda files: reported(files).files
        )
    record, note = done.record, done.source.note
    if done.existed:
        typer.echo(f"{record['id']}  {record['task']}  was there already and stays as it is")
        return
    typer.echo(f"{record['id']}  {record['task']}  {record['recipe']}, rank {record['rank']}")
    if "conversion" in note:
        typer.echo(f"relative error of the conversion: {note['conversion']['relative_error']:.2e}")


def export_command(
    identity: Annotated[str, typer.Argument(help="Id or task.")],
    out: Annotated[Path, typer.Option(help="Folder for the adapter.")],
    location: Location = SHIPPED_LIBRARY,
    profile: Annotated[Profile | None, typer.Option(help="lossless or portable.")] = None,
    format: Annotated[Format | None, typer.Option(help="peft, diffusers, kohya or xlabs.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the folder.")] = False,
    catalogue: CatalogueUrl = None,
) -> None:
    """Write an adapter: as it came, as a PEFT folder, or in the portable profile.

    Example: lorasmith library export task001_x --library my-library --out my-adapter
    """
    require_absent(out, overwrite)
    if profile == "portable" and format not in (None, "peft"):
        raise UsageError(f"the portable profile is a PEFT folder, not a {format} file")
    from library.exchange.exporting import export_files
    from library.store.catalogue import find

    opened = catalogue_at(location, catalogue)
    record = find(opened, identity)
    files = export_files(opened.folder, record, profile=profile, format=format)
    write_folder(out, files, overwrite=overwrite)
    typer.echo(f"{record['id']}  {out}")
