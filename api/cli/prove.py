"""`lorasmith commit`, `prove` and `verify-proof`: zero-knowledge proofs in files."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from library.errors import UsageError
from library.files import require_absent, require_kind, write_file

if TYPE_CHECKING:
    from verification.zk.backend import Srs
    from verification.zk.manifest import Manifest
    from verification.zk.report import Report

Adapter = Annotated[Path, typer.Argument(help="Adapter folder.")]
ManifestFile = Annotated[Path, typer.Option("--manifest", help="The manifest, as pinned.")]
SrsFile = Annotated[
    Path | None, typer.Option("--srs", help="The verifier's SRS; default: this machine's own.")
]
Nonce = Annotated[str, typer.Option(help="8 characters or more, drawn by the verifier.")]
Modules = Annotated[str, typer.Option(help="How many the nonce selects, or 'all'.")]
Limit = Annotated[
    int | None,
    typer.Option(min=1, help="Columns of dW given away a module, ever; default: rank - 1."),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


def commit_command(
    path: Adapter,
    out: Annotated[Path | None, typer.Option(help="Where the manifest goes.")] = None,
    check: Annotated[
        Path | None, typer.Option(help="Compare with this manifest instead; exit 1 if it differs.")
    ] = None,
    srs: SrsFile = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
) -> None:
    """Commit to an adapter's weights without showing them (needs the extra zk).

    Example: lorasmith commit my-adapter --srs verifier.srs --out manifest.json
    """
    if (out is None) == (check is None):
        raise UsageError("give --out to write a manifest or --check to compare with one")
    if out is not None:
        require_free(out, overwrite)
    from verification.zk.backend import Backend, read_srs
    from verification.zk.manifest import commit_adapter, read_zk_manifest
    from verification.zk.verify import compare_commitment

    reference_string = read_srs(srs) if srs else None
    with Backend() as backend:
        if check is not None:
            manifest = read_zk_manifest(check)
            findings = compare_commitment(
                path, manifest, reference_string or srs_for(None, manifest), backend
            )
            for finding in findings:
                typer.echo(f"{finding.code}: {finding.message}")
            if findings:
                raise typer.Exit(1)
            typer.echo(f"{path} is the adapter of {check}")
            return
        manifest = commit_adapter(path, backend, reference_string)
    assert out is not None
    write_file(out, manifest.to_bytes())
    typer.echo(f"{manifest.digest}  {out}")
    typer.echo(f"  {len(manifest.modules)} modules under the SRS {manifest.srs_sha256[:16]}…")
    if srs is None:
        typer.echo("that SRS was made here and convinces nobody elsewhere; see --srs", err=True)


def prove_command(
    path: Adapter,
    manifest: ManifestFile,
    nonce: Nonce,
    out: Annotated[Path, typer.Option(help="Where the proof goes.")],
    modules: Modules = "4",
    srs: SrsFile = None,
    limit: Limit = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
) -> None:
    """Prove what committed modules make of inputs that a nonce gives (needs the extra zk).

    Example: lorasmith prove my-adapter --manifest manifest.json --nonce 5f0c92ab --out proof.json
    """
    require_free(out, overwrite)
    from verification.zk.backend import Backend
    from verification.zk.bundle import prove_hashed
    from verification.zk.manifest import read_zk_manifest
    from verification.zk.proof import Owner

    committed, count = read_zk_manifest(manifest), how_many(modules)
    with Backend() as backend:
        owner = Owner(path, committed, srs_for(srs, committed), backend, limit)
        bundle = prove_hashed(owner, nonce, count)
    write_file(out, bundle.to_bytes())
    typer.echo(f"{len(bundle.modules)} of {len(committed.modules)} modules proved  {out}")


def verify_proof(
    proof: Annotated[Path, typer.Argument(help="File of `lorasmith prove`.")],
    manifest: ManifestFile,
    nonce: Nonce,
    modules: Modules = "4",
    srs: SrsFile = None,
    as_json: Json = False,
) -> None:
    """Check a proof against a pinned manifest; exit 1 if it is refused (needs the extra zk).

    Example: lorasmith verify-proof proof.json --manifest manifest.json --nonce 5f0c92ab
    """
    from verification.zk.backend import Backend
    from verification.zk.bundle import read_bundle, verify_hashed
    from verification.zk.manifest import read_zk_manifest

    pinned, bundle, count = read_zk_manifest(manifest), read_bundle(proof), how_many(modules)
    with Backend() as backend:
        report = verify_hashed(pinned, bundle, nonce, count, srs_for(srs, pinned), backend)
    show_manifest(report, as_json)


def show_manifest(report: "Report", as_json: bool) -> None:
    """Print a report; exit 1 if it refuses."""
    if as_json:
        typer.echo(json.dumps(report.to_dict(), ensure_ascii=False))
    else:
        typer.echo(report.verdict)
        for finding in report.findings:
            typer.echo(f"  {finding.code}: {finding.message}")
        for sentence in report.to_dict()["says"]:
            typer.echo(f"  {sentence}")
    if report.verdict == "refuse":
        raise typer.Exit(1)


def how_many(modules: str) -> int | None:
    """`--modules` as a number; None for all. Raises UsageError."""
    if modules == "all":
        return None
    if not modules.isascii() or not modules.isdecimal() or int(modules) < 1:
        raise UsageError(f"--modules must be a number from 1 or 'all', not {modules!r}")
    return int(modules)


def srs_for(path: Path | None, manifest: "Manifest") -> "Srs":
    """The SRS that was given, or this machine's own of the manifest's size."""
    from verification.zk.backend import local_srs, read_srs

    return read_srs(path) if path else local_srs(manifest.srs_logrows)


def require_free(out: Path, overwrite: bool) -> None:
    """Raise OutputExists unless a file may be written there."""
    require_absent(out, overwrite)
    require_kind(out, folder=False)
