"""Statements, and the owner who answers and proves them.

Secret, on the owner's side: A and scaling·B. Public: the manifest's commitments to them, X and Y.
A statement is "the weights committed to for this module map X to Y", under a manifest, a nonce and
a folding seed; its digest is an input of the proof. The verifier builds every instance from X and Y
that it holds itself, so a proof file carries none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from library.canonical import json_digest
from library.errors import UsageError
from verification.artifact import ShareProgress
from verification.zk.backend import Backend, Srs
from verification.zk.child import Rows, felt
from verification.zk.errors import ChallengeError, ProofFileError, ProverError
from verification.zk.integers import (
    PROTOCOL,
    columns,
    fold,
    folding,
    integers_digest,
    largest_fold,
    product,
    require_in_reach,
    require_inputs,
    tag,
)
from verification.zk.ledger import Ledger
from verification.zk.manifest import Manifest, all_keys, files_digests, read_weights


@dataclass(frozen=True)
class Statement:
    """X·Aᵀ·(scaling·B)ᵀ = Y for one module, over integers.

    Attributes:
        manifest: digest of the manifest.
        module: name of the module.
        nonce: the verifier's, drawn for this check.
        fold_seed: the verifier's, drawn after Y was fixed; "" for a single row.
        x: `(rows, in)`. y: `(rows, out)`.
    """

    manifest: str
    module: str
    nonce: str
    fold_seed: str
    x: Rows
    y: Rows

    @cached_property
    def digest(self) -> str:
        """SHA-256 over everything that the statement says."""
        names = [PROTOCOL, self.manifest, self.module, self.nonce, self.fold_seed]
        return json_digest([*names, integers_digest(self.x), integers_digest(self.y)])

    @cached_property
    def folded(self) -> tuple[list[int], list[int]]:
        """The one row that is proved: Σ c_i·x_i `(in,)` and Σ c_i·y_i `(out,)`.

        Raises UsageError for several rows without a seed: whoever knows the coefficients beforehand
        can find a wrong Y that passes.
        """
        if len(self.x) > 1 and not self.fold_seed:
            raise UsageError("several rows take a folding seed that was drawn after the answers")
        coefficients = folding(self.digest, len(self.x))
        return fold(self.x, coefficients), fold(self.y, coefficients)

    def instances(self) -> list[str]:
        """The public inputs in the circuit's order: x, tag, y, 2·tag."""
        (x, y), marks = self.folded, tag(self.digest)
        return [felt(value) for value in [*x, *marks, *y, *(2 * mark for mark in marks)]]


class Owner:
    """The side that holds the adapter: answers and proves, within its limit.

    Args:
        folder: the adapter.
        manifest: what was committed to.
        srs: the SRS of the commitments.
        limit: rows answered a module, ever; see Ledger.
    Raises ProofFileError: manifest, adapter and SRS do not belong together.
    """

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        srs: Srs,
        backend: Backend,
        limit: int | None = None,
    ) -> None:
        self.manifest, self._srs, self._backend = manifest, srs, backend
        self._weights, _ = read_weights(folder)
        if files_digests(folder) != (manifest.adapter_sha256, manifest.config_sha256):
            raise ProofFileError(f"the manifest is not that of the adapter at {folder}")
        if srs.sha256 != manifest.srs_sha256:
            raise ProofFileError("the manifest was made with another SRS")
        self._keys = all_keys((weights.shape for weights in self._weights.values()), backend, srs)
        self._ledger = Ledger(self._weights, limit)

    def answer(self, questions: dict[str, Rows], *, hashed: bool = False) -> dict[str, Rows]:
        """Y for rows X of each module; counts against the limit.

        Args:
            hashed: X comes from a hash and not from the verifier: each row counts as one column.
        Raises:
            ChallengeError, TooLarge: X could never be proved, and nothing was counted.
            ProofLimit, ProofFileError: as Ledger.charge.
        """
        for name, rows in questions.items():
            weights = self._weights.get(name)
            if weights is None:
                raise ChallengeError(f"the adapter has no module named {name}")
            width = weights.shape.in_features
            if not rows or any(len(row) != width for row in rows):
                raise ChallengeError(f"{name} takes one or more rows of {width} numbers")
            require_inputs(rows)
            require_in_reach(largest_fold(rows), weights.a, weights.b)  # whatever the seed will be
        count = (lambda row: 1) if hashed else columns
        self._ledger.charge({name: sum(map(count, rows)) for name, rows in questions.items()})
        return {
            name: product(rows, self._weights[name].a, self._weights[name].b)
            for name, rows in questions.items()
        }

    def prove(
        self,
        statements: Sequence[Statement],
        progress: ShareProgress = lambda share: None,
    ) -> list[str]:
        """Proofs in hex of statements about rows that `answer` has accepted, in order.

        `progress` is as of Backend.each. Raises ProverError.
        """
        return self._backend.each(self._prove, statements, progress)

    def _prove(self, statement: Statement) -> str:
        weights = self._weights[statement.module]
        result = self._backend.call(
            "prove",
            folder=str(self._keys[weights.shape].folder),
            srs=str(self._srs.path),
            a=weights.a,
            b=weights.b,
            x=statement.folded[0],
            tag=tag(statement.digest),
        )
        if result["instances"] != statement.instances():
            raise ProverError(f"ezkl computed another output of {statement.module}")
        return result["proof"]
