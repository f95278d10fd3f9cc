"""`lorasmith export`: an adapter in the form that a server or a registry takes."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

import lorasmith
from library.errors import UsageError
from library.files import require_absent, require_kind, require_present
from library.quiet import quiet_libraries

ExportFormat = Literal["gguf", "oci"]


def export_adapter(
    path: Annotated[Path, typer.Argument(help="An adapter's folder.")],
    format: Annotated[
        ExportFormat,
        typer.Option("--as", help="gguf: for llama.cpp; oci: an artifact for a registry."),
    ],
    out: Annotated[
        Path, typer.Option(help="File to create; of oci a folder, or a file that ends in .tar.")
    ],
    base: Annotated[
        str | None, typer.Option(help="Base model (default: the one that the adapter names).")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write a verified adapter as a GGUF file for llama.cpp, or as an OCI artifact.

    Example: lorasmith export my-adapter --as gguf --out my-adapter.gguf
    """
    if base is not None and format == "oci":
        raise UsageError("--base is for gguf: an OCI artifact holds the files as they are")
    in_folder = format == "oci" and out.suffix != ".tar"
    require_present(path)
    require_absent(out, overwrite)
    require_kind(out, folder=in_folder)
    quiet_libraries()
    from library.peft.folder import read_adapter_folder
    from library.peft.provenance import PROVENANCE_FILE, README_FILE, SIGNATURE_FILE

    lorasmith.verify(path, base=base).require_accepted(str(path))
    files = read_adapter_folder(path, optional=(PROVENANCE_FILE, README_FILE, SIGNATURE_FILE))
    told = _gguf(files, base, out) if format == "gguf" else _oci(files, out, overwrite)
    summary = {"out": str(out), "as": format, **told}
    typer.echo(json.dumps(summary) if as_json else f"{summary['digest']}  {out}")


def _gguf(files: dict[str, bytes], base: str | None, out: Path) -> dict[str, Any]:
    """Write the file; what `--json` says of it."""
    from library.canonical import file_digest
    from library.exchange.gguf_lora import gguf_lora
    from library.files import whole_file

    content = gguf_lora(files, base)
    with whole_file(out) as staging:
        content.write(staging)
        digest, size = f"sha256:{file_digest(staging)}", staging.stat().st_size
    told = {"architecture": content.architecture, "rank": content.rank}
    return {"digest": digest, "bytes": size, **told}


def _oci(files: dict[str, bytes], out: Path, overwrite: bool) -> dict[str, Any]:
    """Write the folder or tar; what `--json` says of it."""
    from library.archive import tar_parts
    from library.exchange.oci import ARTIFACT_TYPE, oci_layout
    from library.files import whole_file, write_folder

    layout = oci_layout(files)
    if out.suffix == ".tar":
        members = ((name, len(blob), [blob]) for name, blob in layout.files.items())
        with whole_file(out) as staging, staging.open("wb") as file:
            file.writelines(tar_parts(members))
        size = out.stat().st_size
    else:
        write_folder(out, layout.files, overwrite=overwrite)
        size = sum(map(len, layout.files.values()))
    return {"digest": layout.digest, "bytes": size, "artifact_type": ARTIFACT_TYPE}
