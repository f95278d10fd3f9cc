"""The integrity hook: are these the bytes that provenance.json speaks of?

`sha256` and `id` are recomputed. That finds every change of the weights, the config and what the id
covers, if the provenance comes from somewhere trusted (`--provenance`) or is signed; whoever can
change a whole folder can write a provenance that fits.
"""

from typing import Any

from library.peft.provenance import PROVENANCE_FILE, adapter_id
from library.peft.safetensors_file import BadFile
from verification.artifact import Artifact, Context
from verification.hook import Finding

INTEGRITY_HOOK = "integrity"


def check_integrity(artifact: Artifact, context: Context) -> list[Finding]:
    """Compare digest and id. Raises BadFile if the provenance or the config cannot be read."""
    provenance = artifact.provenance
    if provenance is None:
        message = f"there is no {PROVENANCE_FILE} to compare the files with"
        return [Finding(INTEGRITY_HOOK, "no-provenance", "info", message)]
    if not isinstance(provenance.get("sha256"), str) or not isinstance(provenance.get("id"), str):
        raise BadFile("provenance", "the provenance names no sha256 and id")
    sha256 = artifact.sha256
    if sha256 != provenance["sha256"]:
        evidence = {"found": sha256, "expected": provenance["sha256"]}
        message = "the weights do not match the digest in the provenance"
        return [Finding(INTEGRITY_HOOK, "sha256-differs", "refuse", message, evidence)]
    if artifact.config is None:
        message = "without a config the id cannot be recomputed; the weights match"
        return [Finding(INTEGRITY_HOOK, "id-not-checked", "warn", message)]
    identity = _identity(artifact.config, sha256, provenance)
    if identity != provenance["id"]:
        evidence = {"found": identity, "expected": provenance["id"]}
        message = "the id does not match the config and the request"
        return [Finding(INTEGRITY_HOOK, "id-differs", "refuse", message, evidence)]
    return []


def _identity(config: dict[str, Any], sha256: str, provenance: dict[str, Any]) -> str:
    try:
        return adapter_id(config, sha256, provenance)
    except (ValueError, TypeError, RecursionError) as error:
        raise BadFile("provenance", f"config and provenance have no id: {error}") from error
