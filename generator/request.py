"""What is asked for, what is chosen, and how an adapter becomes finished files."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from index.encoders.descriptions import normalise
from index.search.retriever import Neighbour
from library.adapter import Adapter
from library.canonical import json_digest
from library.errors import UsageError
from library.peft.provenance import AdapterFiles, Provenance, finish
from library.peft.write import Profile, to_peft
from library.tasks.files import Example

MAX_STRENGTH = 10.0
MAX_RANK = 256
MAX_SEED = 2**53 - 1  # what JSON numbers hold exactly
MAX_EXAMPLES = 200


@dataclass(frozen=True)
class Request:
    """What is asked for. Validated on construction; raises UsageError.

    Attributes:
        description: the task, 1 to 8,192 characters; kept in its normal form.
        rank: below the adapter's own, the best approximation of ΔW; above, zero-padded.
        strength: factor on ΔW.
        seed: recorded in the identity; no strategy here draws anything at random.
        profile: see library.peft.write.
        examples: of the task, for strategies that can use them.
    """

    description: str
    rank: int | None = None
    strength: float = 1.0
    seed: int = 0
    profile: Profile = "portable"
    examples: tuple[Example, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "description", normalise(self.description))
        if self.rank is not None and not 1 <= self.rank <= MAX_RANK:
            raise UsageError(f"rank must be from 1 to {MAX_RANK}, not {self.rank}")
        if not math.isfinite(self.strength) or not 0 < abs(self.strength) <= MAX_STRENGTH:
            raise UsageError(
                f"strength must be from -{MAX_STRENGTH:g} to {MAX_STRENGTH:g} and not zero, "
                f"not {self.strength}"
            )
        if not 0 <= self.seed <= MAX_SEED:
            raise UsageError(f"seed must be from 0 to {MAX_SEED}, not {self.seed}")
        if self.profile not in ("portable", "lossless"):
            raise UsageError(f"profile must be portable or lossless, not {self.profile!r}")
        if len(self.examples) > MAX_EXAMPLES:
            raise UsageError(f"at most {MAX_EXAMPLES} examples, not {len(self.examples)}")
        try:
            "".join(e.input + e.output for e in self.examples).encode("utf-8")
        except UnicodeEncodeError as error:
            raise UsageError("an example is not valid UTF-8") from error

    @property
    def examples_digest(self) -> str | None:
        """SHA-256 of the examples in their order; None if there are none."""
        pairs = [{"input": e.input, "output": e.output} for e in self.examples]
        return json_digest(pairs) if pairs else None


@dataclass(frozen=True)
class Chosen:
    """Which strategy made the adapter, and why.

    Attributes:
        strategy: "text-to-lora", "nearest" or "compose".
        reason: one sentence.
        neighbours: the library's adapters nearest to the description, nearest first.
        predicted_recovery: share of an oracle's gain over the base that calibration leads to
            expect; None where nothing was calibrated.
    """

    strategy: str
    reason: str
    neighbours: Sequence[Neighbour] = ()
    predicted_recovery: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "neighbours": [n.to_dict() for n in self.neighbours]}


@dataclass(frozen=True)
class Proposal:
    """An adapter and where it comes from, before rank, strength and profile of the request.

    Attributes:
        checkpoint: digest of the checkpoint that generated it, or None.
        parents: ids of the library's adapters that it was made from, or None.
        details: further members of provenance's `details`.
        tried_in: numerics of the base whose answers decided, if any did.
    """

    adapter: Adapter
    chosen: Chosen
    checkpoint: str | None = None
    parents: list[str] | None = None
    details: dict[str, Any] = field(default_factory=dict)
    tried_in: str | None = None


@dataclass(frozen=True)
class Generated:
    """A finished adapter and how it came about, as `generate --json` shows it."""

    files: AdapterFiles
    adapter: Adapter = field(repr=False)
    generator: str = ""
    base_model: str = ""
    seed: int = 0
    profile: Profile = "portable"
    chosen: dict[str, Any] = field(default_factory=dict)

    def stored(self) -> Adapter:
        """The adapter with the weights that are in the file (bfloat16 if portable)."""
        dtype = torch.bfloat16 if self.profile == "portable" else torch.float32
        return self.adapter.to(dtype=dtype)

    def summary(self) -> dict[str, Any]:
        return {
            "id": self.files.id,
            "sha256": self.files.sha256,
            "generator": self.generator,
            "base_model": self.base_model,
            "layout_digest": self.adapter.layout.digest,
            "rank": self.adapter.layout.rank,
            "seed": self.seed,
            "chosen": self.chosen,
        }


def finished(
    request: Request, proposal: Proposal, *, generator: str, base: dict[str, Any], numerics: str
) -> Generated:
    """Rank, strength and profile as requested, then the files.

    Args:
        generator: the name that was asked for.
        base: {"id", "sha256", "source"} of the base model.
        numerics: what the bytes depend on beside the request.
    """
    adapter = proposal.adapter.to(device="cpu")
    if request.strength != 1.0:
        adapter = adapter.scaled(request.strength)
    if request.rank is not None and request.rank != adapter.layout.rank:
        adapter = adapter.with_rank(request.rank)
    chosen = proposal.chosen.to_dict()
    provenance = Provenance(
        generator=generator,
        checkpoint=proposal.checkpoint,
        description=request.description,
        seed=request.seed,
        numerics="+".join(filter(None, (numerics, proposal.tried_in))),
        layout_digest=adapter.layout.digest,
        base=base,
        examples=request.examples_digest,
        parents=proposal.parents,
        neighbours=chosen["neighbours"],
        details={
            **proposal.details,
            "profile": request.profile,
            "strength": request.strength,
        },
    )
    return Generated(
        files=finish(to_peft(adapter, base_name=base["id"], profile=request.profile), provenance),
        adapter=adapter,
        generator=generator,
        base_model=base["id"],
        seed=request.seed,
        profile=request.profile,
        chosen=chosen,
    )
