"""Statements, and the owner who answers and proves them.

A statement is "the weights committed to for this module map X to Y", under a manifest, a nonce and
a folding seed; its digest is an input of the proof. The verifier builds every instance from X and Y
that it holds itself, so a proof file carries none.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from library.canonical import json_digest
from library.errors import UsageError
from verification.zk.backend import Backend, Srs
from verification.zk.child import felt
from verification.zk.errors import ChallengeError, ProofFileError, ProverError
from verification.zk.integers import (
    PROTOCOL,
    Rows,
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
        about = [PROTOCOL, self.manifest, self.module, self.nonce, self.fold_seed]
        return json_digest([*about, integers_digest(self.x), integers_digest(self.y)])

    @cached_property
    def folded(self) -> tuple[list[int], list[int]]:
        """The one row that is proved: Σ c_i·x_i and Σ c_i·y_i.

        Raises UsageError for several rows without a seed: who knows the coefficients beforehand
        can find a wrong Y that they do not show.
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
        self._keys = all_keys((mine.shape for mine in self._weights.values()), backend, srs)
        self._ledger = Ledger(self._weights, limit)

    def answer(self, questions: dict[str, Rows], *, chosen: bool = True) -> dict[str, Rows]:
        """Y for rows X of each module; counts against the limit.

        Args:
            chosen: whether the verifier chose X; a row that a hash gave counts as one column.
        Raises:
            ChallengeError, TooLarge: X could never be proved, and nothing was counted.
            ProofLimit, ProofFileError: as Ledger.charge.
        """
        for name, rows in questions.items():
            if name not in self._weights:
                raise ChallengeError(f"the adapter has no module named {name}")
            width = self._weights[name].shape.in_features
            if not rows or any(len(row) != width for row in rows):
                raise ChallengeError(f"{name} takes one or more rows of {width} numbers")
            require_inputs(rows)
            require_in_reach(largest_fold(rows), self._weights[name].a, self._weights[name].b)
        count = columns if chosen else lambda row: 1
        self._ledger.charge({name: sum(map(count, rows)) for name, rows in questions.items()})
        return {
            name: product(rows, self._weights[name].a, self._weights[name].b)
            for name, rows in questions.items()
        }

    def prove(
        self,
        statements: Sequence[Statement],
        progress: Callable[[float], None] = lambda share: None,
    ) -> list[str]:
        """Proofs in hex, in order; `progress` as of Backend.each. Raises TooLarge, ProverError."""
        return self._backend.each(self._prove, statements, progress)

    def _prove(self, statement: Statement) -> str:
        mine = self._weights[statement.module]
        row, _ = statement.folded
        require_in_reach(row, mine.a, mine.b)
        made = self._backend.call(
            "prove",
            folder=str(self._keys[mine.shape].folder),
            srs=str(self._srs.path),
            a=mine.a,
            b=mine.b,
            x=row,
            tag=tag(statement.digest),
        )
        if made["instances"] != statement.instances():
            raise ProverError(f"ezkl computed another output of {statement.module}")
        return made["proof"]
