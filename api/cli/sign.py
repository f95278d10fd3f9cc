"""`lorasmith sign`: a statement about an adapter, signed with a key of one's own."""

from pathlib import Path
from typing import Annotated

import typer

from library.errors import AdapterFileError
from library.files import require_present, write_file


def sign(
    path: Annotated[Path, typer.Argument(help="An adapter's folder.")],
    key: Annotated[Path, typer.Option(help="An ed25519 private key in PEM.")],
    create_key: Annotated[
        bool, typer.Option("--create-key", help="Make it first, and KEY.pub beside it.")
    ] = False,
) -> None:
    """Write provenance.dsse.json beside an adapter that verify does not refuse.

    Example: lorasmith sign my-adapter --key key.pem --create-key
    """
    require_present(path, None if create_key else key)
    if not path.is_dir():
        raise AdapterFileError(f"{path} is not an adapter's folder")
    from verification.artifact import SIGNATURE_FILE, Context, read_subject
    from verification.checks.signing import create_key as make_key
    from verification.checks.signing import key_id, read_private_key, require_no_key
    from verification.checks.signing import sign as signed
    from verification.run import Policy, run

    if create_key:
        require_no_key(key)
    private = None if create_key else read_private_key(key)
    subject = read_subject(path)
    found = run(subject, Context(), Policy(("format", "integrity")))
    refused = next((f for f in found if f.severity == "refuse"), None)
    if refused is not None:
        raise AdapterFileError(f"{path} is not signed: {refused.message}")
    if private is None:
        make_key(key)
        private = read_private_key(key)
    try:
        envelope = signed(subject, private)
    except (ValueError, TypeError, RecursionError) as error:  # canonical JSON cannot hold it
        raise AdapterFileError(f"{path} has a provenance that cannot be signed: {error}") from error
    write_file(path / SIGNATURE_FILE, envelope)
    typer.echo(f"{path / SIGNATURE_FILE}  key {key_id(private.public_key())}")
