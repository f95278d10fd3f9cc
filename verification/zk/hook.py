"""Proofs as a hook: of an adapter that lies here, for whoever keeps its manifest.

It commits, proves and checks its own proofs with the verifier's function. The finding carries
manifest and proof, for a verifier who keeps the manifest and has a nonce and an SRS of its own to
check them again (`lorasmith verify-proof`): that this side says they hold convinces nobody else.
"""

import secrets
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from library.files import write_folder
from verification.artifact import Artifact, Context, ShareProgress
from verification.hook import Finding
from verification.run import Hook
from verification.zk.backend import Backend, Srs, local_srs
from verification.zk.bundle import Bundle, prove_hashed, verify_hashed
from verification.zk.manifest import Manifest, commit_adapter
from verification.zk.proof import Owner
from verification.zk.report import ZK_HOOK, Report

MODULES = 4  # proved where nobody says how many
_COMMITTED, _PROVED = 0.1, 0.98  # shares of the work when these steps are done


@dataclass(frozen=True)
class Challenge:
    """A request for proofs.

    Attributes:
        nonce: the verifier's.
        modules: how many, selected by the nonce; None for all.
    """

    nonce: str
    modules: int | None = MODULES


def new_nonce() -> str:
    """A nonce for whoever names none."""
    return secrets.token_hex(16)


def zk_hook(challenge: Challenge, srs: Srs | None = None) -> Hook:
    """The hook that answers a challenge; arguments and errors are those of `check_proofs`."""

    def check(subject: Artifact, context: Context) -> list[Finding]:
        return check_proofs(subject, challenge, context.progress, srs)

    return Hook(ZK_HOOK, 1e5, check)


def check_proofs(
    subject: Artifact, challenge: Challenge, progress: ShareProgress, srs: Srs | None = None
) -> list[Finding]:
    """Commit to an adapter, prove modules and verify the proofs.

    Args:
        progress: called with the share that is done, after each module and while ezkl works; what
            it raises ends the work and its processes.
        srs: the verifier's, or a ceremony's; this machine's own if None.
    Raises:
        MissingExtra: ezkl is not installed.
        ProofLimit: the owner answers no more about this adapter.
        UsageError, TooLarge, ProverError, AdapterFileError: as the functions used say.
    """
    with tempfile.TemporaryDirectory() as work, Backend(still=lambda: progress(0.0)) as backend:
        folder = Path(work) / "adapter"
        write_folder(folder, dict(subject.files))
        manifest = commit_adapter(folder, backend, srs, _part(progress, 0.0, _COMMITTED))
        used_srs = srs or local_srs(manifest.srs_logrows)
        owner = Owner(folder, manifest, used_srs, backend)
        proving = _part(progress, _COMMITTED, _PROVED)
        bundle = prove_hashed(owner, challenge.nonce, challenge.modules, proving)
        report = verify_hashed(
            manifest, bundle, challenge.nonce, challenge.modules, used_srs, backend
        )
    return _findings(report, manifest, bundle, made_here=srs is None)


def _part(progress: ShareProgress, start: float, end: float) -> ShareProgress:
    return lambda share: progress(start + share * (end - start))


def _findings(
    report: Report, manifest: Manifest, bundle: Bundle, *, made_here: bool
) -> list[Finding]:
    """The report's, the first with everything that it is about."""
    summary = {
        key: value for key, value in report.to_dict().items() if key not in ("verdict", "findings")
    }
    first, *others = report.findings
    evidence = {
        **summary,
        "srs_made_here": made_here,
        "nonce": bundle.nonce,
        "files": {"manifest.json": asdict(manifest), "proof.json": asdict(bundle)},
    }
    message = first.message
    if made_here:
        message += ", under an SRS made on this machine, which convinces only its owner"
    return [replace(first, message=message, evidence=evidence), *others]
