"""`lorasmith zk`: the SRS, and proofs between two processes over HTTP."""

from pathlib import Path
from typing import Annotated

import typer

from api.cli.prove import (
    Adapter,
    Json,
    Limit,
    ManifestFile,
    Modules,
    SrsFile,
    how_many,
    require_free,
    show_manifest,
    srs_for,
)
from library.files import write_file

zk = typer.Typer(help="Proofs over HTTP, and the SRS they rest on.", rich_markup_mode=None)


@zk.command("srs")
def make_srs(
    out: Annotated[Path, typer.Option(help="Where the SRS goes.")],
    logrows: Annotated[int, typer.Option(help="Log2 of its points; 12 does for width 576.")] = 12,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
) -> None:
    """Make an SRS, as the verifier: whoever makes it could forge proofs (needs the extra zk).

    Example: lorasmith zk srs --out verifier.srs
    """
    require_free(out, overwrite)
    from verification.zk.backend import Backend, new_srs, read_srs

    with Backend(1) as backend:
        write_file(out, new_srs(backend, logrows))
    typer.echo(f"{read_srs(out).sha256}  {out}")


@zk.command("serve")
def zk_serve(
    path: Adapter,
    manifest: ManifestFile,
    srs: SrsFile = None,
    host: Annotated[str, typer.Option(help="Loopback only.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8100,
    limit: Limit = None,
) -> None:
    """Answer and prove over HTTP, as the owner; stop with Ctrl-C (needs the extra zk).

    Example: lorasmith zk serve my-adapter --manifest manifest.json --srs verifier.srs
    """
    from api.service.settings import require_loopback
    from api.zk.owner import serve_owner
    from verification.zk.backend import Backend
    from verification.zk.manifest import read_zk_manifest
    from verification.zk.proof import Owner

    require_loopback(host)
    committed = read_zk_manifest(manifest)
    with Backend() as backend:
        owner = Owner(path, committed, srs_for(srs, committed), backend, limit)
        serve_owner(owner, host, port)


@zk.command("ask")
def zk_ask(
    url: Annotated[str, typer.Argument(help="Where the owner serves.")],
    manifest: ManifestFile,
    text: Annotated[str, typer.Option(help="Prompt whose activations are the inputs.")],
    base: Annotated[str | None, typer.Option(help="Hub id, hub:ID or folder.")] = None,
    rows: Annotated[int, typer.Option(min=1, help="Tokens, from the prompt's end.")] = 1,
    modules: Modules = "4",
    srs: SrsFile = None,
    as_json: Json = False,
) -> None:
    """Send the base model's activations to an owner and check its proofs (needs the extra zk).

    Example: lorasmith zk ask http://127.0.0.1:8100 --manifest manifest.json --srs verifier.srs
    --text "The soup was cold."
    """
    from api.zk.verifier import ask_owner, require_question
    from library.base.models import load_base, resolve_base
    from library.quiet import quiet_libraries
    from verification.zk.activations import activations
    from verification.zk.backend import Backend
    from verification.zk.manifest import read_zk_manifest

    pinned, count = read_zk_manifest(manifest), how_many(modules)
    require_question(url, len(pinned.modules), count)
    reference = resolve_base(base)
    with Backend() as backend:
        reference_string = srs_for(srs, pinned)
        quiet_libraries()
        x = activations(load_base(reference), pinned.modules, text, rows)
        report = ask_owner(url, pinned, x, count, reference_string, backend)
    show_manifest(report, as_json)
