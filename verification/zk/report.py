"""The report of a check of proofs, with the three sentences that stand in every one."""

from dataclasses import dataclass
from typing import Any

from verification.hook import Finding, Verdict, verdict
from verification.zk.integers import FOLD_BITS
from verification.zk.manifest import Manifest

ZK_HOOK = "zk"


@dataclass(frozen=True)
class Report:
    """The outcome of one check.

    Attributes:
        findings: refusals, or one finding that says what was proved.
        proved: names of the modules whose proofs hold.
        rows: how many rows of a module were folded into a proof.
    """

    manifest: Manifest
    findings: list[Finding]
    proved: list[str]
    rows: int

    @property
    def verdict(self) -> Verdict:
        return verdict(self.findings)

    def to_dict(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "findings": [finding.to_dict() for finding in self.findings],
            "manifest": self.manifest.digest,
            "adapter_sha256": self.manifest.adapter_sha256,
            "srs_sha256": self.manifest.srs_sha256,
            "proved": self.proved,
            "modules": len(self.manifest.modules),
            "rows": self.rows,
            "largest_difference": self.manifest.largest_difference,
            "says": sentences(self.manifest, self.rows),
        }


def proof_refusal(code: str, message: str) -> Finding:
    """A refusal whose `code` is from the table in docs/zero-knowledge.md."""
    return Finding(ZK_HOOK, code, "refuse", message)


def sentences(manifest: Manifest, rows: int = 1) -> list[str]:
    """Three sentences: what the proofs prove, what they do not, and what both rest on."""
    folded = f", folded with an error of at most 2^-{FOLD_BITS} a try" if rows > 1 else ""
    return [
        "A proof that holds shows that its maker knew the A and B that the manifest commits to for "
        "that module, and that they map the inputs to the outputs exactly, modulo a 254-bit prime"
        f"{folded}.",
        "It does not show that the inputs come from the base model, that the adapter served is "
        "this one, that its training was honest, or that it is good or safe; and the proof is "
        "about round(w*2^24), which differs from a stored weight (times its scaling) by at most "
        f"{manifest.largest_difference:.2g}.",
        "It rests on nobody knowing the secret behind the SRS, which the verifier or a ceremony "
        "must have made; and every answered row reveals that row of X*dW exactly, so that as many "
        "rows as a module has inputs reveal its dW, and fewer that were chosen for it.",
    ]
