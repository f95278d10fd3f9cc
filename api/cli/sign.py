"""`lorasmith sign`: a signed statement about an adapter."""

from pathlib import Path
from typing import Annotated

import typer

from library.errors import AdapterFileError
from library.files import require_present, write_file


def sign_command(
    path: Annotated[Path, typer.Argument(help="Folder of the adapter.")],
    key: Annotated[Path, typer.Option(help="File of an ed25519 private key (PEM).")],
    create: Annotated[
        bool, typer.Option("--create-key", help="Create the key first, with KEY.pub beside it.")
    ] = False,
) -> None:
    """Sign an adapter that verify does not refuse: write provenance.dsse.json beside it.

    Example: lorasmith sign my-adapter --key key.pem --create-key
    """
    require_present(path, None if create else key)
    if not path.is_dir():
        raise AdapterFileError(f"{path} is not an adapter's folder")
    from verification.artifact import SIGNATURE_FILE, Context, read_artifact
    from verification.checks.signing import (
        create_key,
        key_id,
        read_private_key,
        require_no_key,
        sign_artifact,
    )
    from verification.run import Policy, run_hooks

    if create:
        require_no_key(key)
    private = None if create else read_private_key(key)
    subject = read_artifact(path)
    report = run_hooks(subject, Context(), Policy(("format", "integrity")))
    refused = next((f for f in report.findings if f.severity == "refuse"), None)
    if refused is not None:
        raise AdapterFileError(f"{path} is not signed: {refused.message}")
    if private is None:
        create_key(key)
        private = read_private_key(key)
    try:
        envelope = sign_artifact(subject, private)
    except (ValueError, TypeError, RecursionError) as error:  # canonical JSON cannot hold it
        raise AdapterFileError(f"{path} has a provenance that cannot be signed: {error}") from error
    write_file(path / SIGNATURE_FILE, envelope)
    typer.echo(f"{path / SIGNATURE_FILE}  key {key_id(private.public_key())}")
