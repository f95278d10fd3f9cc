"""`lorasmith serve`: the REST service, with a flag for each of its settings."""

import os
from pathlib import Path
from typing import Annotated

import typer

# The help of each flag is also its row in docs/production.md.
Config = Annotated[
    Path | None, typer.Option(help="TOML file with any of these settings, by their keys.")
]
Host = Annotated[
    str | None,
    typer.Option(help="Address to listen on; others than loopback take keys (default: 127.0.0.1)."),
]
Port = Annotated[
    int | None,
    typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one (default: 8000)."),
]
AllowedHosts = Annotated[
    str | None,
    typer.Option(
        help="Names, separated by commas, that clients may use; those of loopback too where it "
        "listens there."
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(
        help="Folder of adapters, their owners and names, keys and jobs (default: "
        "~/.local/share/lorasmith)."
    ),
]
Database = Annotated[
    str | None,
    typer.Option(
        help="URL of PostgreSQL for owners, names, keys and jobs of several replicas (default: "
        "files in the data folder)."
    ),
]
Objects = Annotated[
    str | None,
    typer.Option(
        help="URL for adapters' files, as s3://bucket/prefix; credentials are in AWS_* variables "
        "(default: the data folder)."
    ),
]
Checkpoints = Annotated[
    str | None,
    typer.Option(
        help="Folder of a checkpoint by generator, a JSON object (default: the shipped ones)."
    ),
]
MultiTaskFolders = Annotated[
    str | None,
    typer.Option(
        help="Folders of multi-task adapters, separated by commas, each for its base model "
        "(default: the shipped ones, which also come after them)."
    ),
]
GateFolders = Annotated[
    str | None,
    typer.Option(
        help="Folder of a trained gate's checkpoint by name, a JSON object; completions ask it as "
        "route:NAME (default: none)."
    ),
]
Library = Annotated[
    str | None,
    typer.Option(
        help="Folder or URL of the library for search, neighbours and rivals (default: the "
        "shipped sample)."
    ),
]
Tasks = Annotated[
    Path | None, typer.Option(help="Folder of task files with examples for the hook behaviour.")
]
Bases = Annotated[
    str | None,
    typer.Option(
        help="Hub id, hub: id or folder of a base model by name, a JSON object, the default first "
        "(default: the offline one)."
    ),
]
QueueLength = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Requests that may wait while one runs, completions while eight do (default: 128).",
    ),
]
JobQueueLength = Annotated[
    int | None, typer.Option(min=0, help="Jobs that may wait while one runs (default: 16).")
]
RetryAfter = Annotated[
    int | None,
    typer.Option(min=1, help="Seconds that a refused client is told to wait (default: 2)."),
]
QuotaBytes = Annotated[
    int | None,
    typer.Option(min=0, help="Limit for all adapters together (default: 10737418240)."),
]
ImportBytes = Annotated[
    int | None, typer.Option(min=0, help="Limit for the body of an import (default: 268435456).")
]
Ttl = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Seconds after which an adapter that its owner has not used is removed, unless it is "
        "a version of a name (default: never).",
    ),
]
Rate = Annotated[
    str | None,
    typer.Option(
        help="Requests of a key that has no rate of its own, as 60/minute (default: no limit)."
    ),
]
StopSeconds = Annotated[
    int | None,
    typer.Option(
        min=0, help="Seconds that running requests have once it is to stop (default: 20)."
    ),
]
LogFormat = Annotated[
    str | None,
    typer.Option(
        help="How the log is written: text, or json for an object a line (default: text)."
    ),
]
ZkSrs = Annotated[
    Path | None, typer.Option(help="SRS file for proofs (default: one made by this machine).")
]


def serve_command(
    config: Config = None,
    host: Host = None,
    port: Port = None,
    allowed_hosts: AllowedHosts = None,
    data: Data = None,
    database: Database = None,
    objects: Objects = None,
    checkpoints: Checkpoints = None,
    multi_task: MultiTaskFolders = None,
    gates: GateFolders = None,
    library: Library = None,
    tasks: Tasks = None,
    bases: Bases = None,
    queue_length: QueueLength = None,
    job_queue_length: JobQueueLength = None,
    retry_after: RetryAfter = None,
    quota_bytes: QuotaBytes = None,
    import_bytes: ImportBytes = None,
    ttl: Ttl = None,
    rate: Rate = None,
    stop_seconds: StopSeconds = None,
    log_format: LogFormat = None,
    zk_srs: ZkSrs = None,
) -> None:
    """Serve adapters over HTTP until Ctrl-C.

    Each flag is also a variable, as LORASMITH_PORT, and a key of the file that --config names, as
    port; a flag goes before a variable, and that before the file.

    Example: lorasmith serve --port 8000
    """
    given = {name: value for name, value in locals().items() if value is not None}

    from api.http.app import run_server
    from api.service.settings import load_settings
    from library.quiet import quiet_libraries
    from library.store.open import open_library

    settings = load_settings(**given)
    if settings.library is not None:
        open_library(settings.library)
    os.environ["LORASMITH_DATA"] = str(settings.data)  # whatever else is kept goes there too
    quiet_libraries()
    run_server(settings)
