"""`lorasmith backup` and `lorasmith restore`: a service's data folder in one file, and back."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from library.errors import MissingPath, UsageError
from library.files import STANDARD_INPUT, data_dir

Data = Annotated[
    Path | None, typer.Option(help="Data folder of the service (default: LORASMITH_DATA).")
]


def backup_command(
    out: Annotated[Path, typer.Option(help="File for the backup, a tar.")],
    data: Data = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing file.")
    ] = False,
) -> None:
    """Write adapters, owners, names, keys, jobs and kept answers to one file, as of one moment.

    Also while a service runs on them. The file holds what the service keeps private. A database and
    an object store of a service have backups of their own; where they are stated, this is refused.

    Example: lorasmith backup --out lorasmith.tar
    """
    for name in ("LORASMITH_DATABASE", "LORASMITH_OBJECTS"):
        if os.environ.get(name):
            raise UsageError(
                f"backups are of the data folder alone: {name} names what is to be backed up by "
                "its own means"
            )

    from api.service.backup import back_up

    done = back_up(data or data_dir(), out, overwrite=overwrite)
    typer.echo(f"{out}  {done.adapters:,} adapters  {done.bytes:,} bytes")


def restore_command(
    source: Annotated[
        Path, typer.Argument(metavar="FILE", help="As backup wrote it; - for standard input.")
    ],
    data: Data = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a folder that is not empty.")
    ] = False,
) -> None:
    """Make a data folder from a backup; stop the service first.

    The folder appears whole, or stays as it is.

    Example: lorasmith restore lorasmith.tar
    """
    from api.service.backup import restore

    folder = data or data_dir()
    if source == STANDARD_INPUT:
        done = restore(sys.stdin.buffer, folder, overwrite=overwrite)
    elif not source.exists() or source.is_dir():
        raise MissingPath(f"there is no file at {source}")
    else:
        with source.open("rb") as file:
            done = restore(file, folder, overwrite=overwrite)
    typer.echo(f"{folder}  {done.adapters:,} adapters  {done.bytes:,} bytes")
