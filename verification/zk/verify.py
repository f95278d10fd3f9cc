"""The verifier's side: proofs against a pinned manifest, with keys and an SRS of its own."""

from collections.abc import Sequence
from pathlib import Path

from verification.hook import Finding
from verification.zk.backend import BACKEND, Backend, Keys, Srs
from verification.zk.integers import PROTOCOL
from verification.zk.manifest import Manifest, all_keys, commit_adapter
from verification.zk.proof import Statement
from verification.zk.report import ZK_HOOK, Report, proof_refusal


def verify_proofs(
    manifest: Manifest, statements: Sequence[Statement], proofs: Sequence[str], srs: Srs,
    backend: Backend,
) -> Report:  # fmt: skip
    """Check proofs of statements whose X, nonce and seed are the verifier's.

    Args:
        manifest: as pinned before the proofs were asked for.
        statements: X that the verifier chose, Y that the owner answered.
        proofs: in hex, one a statement.
        srs: made by the verifier or a ceremony; never the owner's word.
    """
    rows = max((len(statement.x) for statement in statements), default=1)
    refusals = foreign_manifest(manifest, srs, backend)
    if refusals:
        return Report(manifest, refusals, [], rows)
    shapes = [manifest.by_name[statement.module].shape for statement in statements]
    keys = all_keys(shapes, backend, srs)

    def check(position: int) -> Finding | None:
        statement = statements[position]
        return _check(statement, proofs[position], manifest, keys[shapes[position]], srs, backend)

    results = backend.each(check, range(len(statements)))
    proved = [s.module for s, finding in zip(statements, results, strict=True) if finding is None]
    refused = [finding for finding in results if finding is not None]
    if not proved and not refused:
        refused = [proof_refusal("module-missing", "nothing was proved")]
    count = f"proofs of {len(proved)} of {len(manifest.modules)} modules hold"
    return Report(manifest, refused or [Finding(ZK_HOOK, "proved", "info", count)], proved, rows)


def foreign_manifest(manifest: Manifest, srs: Srs, backend: Backend) -> list[Finding]:
    """Reasons why a manifest cannot be used with this code and SRS; empty if it can."""
    supported, stated = (
        (PROTOCOL, BACKEND, backend.version),
        (manifest.protocol, manifest.backend, manifest.backend_version),
    )
    if supported != stated:
        message = f"the manifest is for {' '.join(stated)}; this is {' '.join(supported)}"
        return [proof_refusal("backend-mismatch", message)]
    if (srs.sha256, srs.logrows) != (manifest.srs_sha256, manifest.srs_logrows):
        message = f"the manifest commits under the SRS {manifest.srs_sha256[:12]}…, not under ours"
        return [proof_refusal("srs-mismatch", message)]
    return []


def compare_commitment(
    folder: Path, manifest: Manifest, srs: Srs, backend: Backend
) -> list[Finding]:
    """Compare the adapter in `folder` with the one committed to: for its owner, or its buyer.

    Everything is derived anew from the files. Raises what `commit` raises.
    """
    refusals = foreign_manifest(manifest, srs, backend)
    if refusals:
        return refusals
    derived = commit_adapter(folder, backend, srs)
    if [m.name for m in derived.modules] != [m.name for m in manifest.modules]:
        return [
            proof_refusal("module-mismatch", "the adapter and the manifest name different modules")
        ]
    for module, pinned in zip(derived.modules, manifest.modules, strict=True):
        if module.shape != pinned.shape:
            return [proof_refusal("shape-mismatch", f"{module.name} has another shape or rank")]
        if (module.alpha, module.scaling) != (pinned.alpha, pinned.scaling):
            return [
                proof_refusal("scaling-mismatch", f"{module.name} has another alpha or scaling")
            ]
        if module.points != pinned.points:
            return [proof_refusal("commitment-mismatch", f"{module.name} has other weights")]
        if module != pinned:
            return [proof_refusal("key-mismatch", f"{module.name} is described otherwise")]
    if derived.digest != manifest.digest:
        return [proof_refusal("file-mismatch", "the same weights in other files")]
    return []


def _check(
    statement: Statement, proof: str, manifest: Manifest, keys: Keys, srs: Srs, backend: Backend
) -> Finding | None:
    """The reason to refuse one proof; None if it holds. `keys` and `srs` are the verifier's own."""
    module = manifest.by_name[statement.module]

    def refuse(code: str, reason: str) -> Finding:
        return proof_refusal(code, f"{module.name}: {reason}")

    widths = {(len(x), len(y)) for x, y in zip(statement.x, statement.y, strict=False)}
    if len(statement.x) != len(statement.y) or widths != {
        (module.in_features, module.out_features)
    }:
        return refuse("instances-mismatch", "inputs or outputs are missing or too many")
    if any(abs(value) >> 127 for row in statement.y for value in row):
        return refuse("instances-mismatch", "an output is larger than any that can be proved")
    if statement.manifest != manifest.digest:
        return refuse("manifest-mismatch", "the statement is under another manifest")
    if keys.vk_sha256 != module.vk_sha256:
        return refuse("key-mismatch", "this shape has another verification key than the manifest's")
    if len(proof) != 2 * keys.proof_bytes or set(proof) - set("0123456789abcdef"):
        return refuse("proof-malformed", f"a proof of this shape is {keys.proof_bytes} bytes")
    if not module.binds or len(module.points) != keys.points:
        return refuse("commitment-mismatch", "the manifest's commitments are not whole points")
    if not proof.startswith("".join(module.points)):
        return refuse("commitment-mismatch", "the proof is about other weights")
    files = {"folder": str(keys.folder), "srs": str(srs.path)}
    if not backend.call("verify", **files, instances=statement.instances(), proof=proof):
        return refuse("proof-invalid", "the proof does not hold for this statement")
    return None
