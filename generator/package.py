"""From a proposal to finished files: the one way in which an adapter leaves the system."""

from dataclasses import dataclass, field
from typing import Any

import torch

from generator.expected import expectation
from generator.request import Query
from generator.strategies.base import Proposal
from library.adapter import Adapter
from library.base.folder_readme import folder_readme
from library.peft.provenance import AdapterFiles, Provenance, finish
from library.peft.write import Profile, as_written, to_peft
from verification.run import QuickCheck


@dataclass(frozen=True)
class Packaged:
    """A finished adapter and how it came about.

    Attributes:
        files: the adapter's files, its id and digest.
        adapter: its weights before they were rounded to the file's type.
        summary: what `generate --json` and REST say of it, report included.
        milliseconds: what each hook took; in no file.
    """

    files: AdapterFiles
    adapter: Adapter = field(repr=False)
    summary: dict[str, Any]
    milliseconds: dict[str, float]
    profile: Profile = "portable"

    def stored(self) -> Adapter:
        """The adapter with the weights that are in the file (bfloat16 if portable)."""
        dtype = torch.bfloat16 if self.profile == "portable" else torch.float32
        return self.adapter.to(dtype=dtype)


def package(query: Query, proposal: Proposal, generator: str) -> Packaged:
    """Scale, fit to the rank, write, check and sign off an adapter, in this order.

    Args:
        generator: name of the strategy that was asked for.
    Raises:
        AdapterRefused: a hook refuses it.
    """
    request, base = query.request, query.resources.described(query.base)
    # 1. What the request says about ΔW.
    adapter = proposal.adapter.to(device="cpu")
    if request.strength != 1.0:
        adapter = adapter.scaled(request.strength)
    if request.rank is not None and request.rank != adapter.layout.rank:
        adapter = adapter.with_rank(request.rank)
    adapter = as_written(adapter, request.profile)
    # 2. What provenance says.
    checked = QuickCheck(query.base)
    chosen = proposal.chosen.to_dict()
    changed = request.strength != 1.0 or adapter.layout.rank < proposal.adapter.layout.rank
    expected = None if changed else expectation(proposal, base["sha256"])
    provenance = Provenance(
        generator=generator,
        checkpoint=proposal.checkpoint,
        description=request.description,
        seed=request.seed,
        numerics="+".join(filter(None, (query.resources.numerics, proposal.tried_in))),
        layout_digest=adapter.layout.digest,
        base=base,
        examples=request.examples_digest,
        parents=proposal.parents,
        usage=proposal.usage.to_dict(),
        expected=None if expected is None else expected.to_dict(),
        neighbours=chosen["neighbours"],
        details={
            **proposal.details,
            "profile": request.profile,
            "strength": request.strength,
        },
    )
    # 3. The files; identity, report and provenance are written once.
    with query.stages("serialise"):
        peft = to_peft(adapter, base_name=base["id"], profile=request.profile)
        files = finish(peft, provenance, checked, folder_readme, query.stages)
    summary = {
        "id": files.id,
        "sha256": files.sha256,
        "generator": generator,
        "base_model": base["id"],
        "layout_digest": adapter.layout.digest,
        "rank": adapter.layout.rank,
        "seed": request.seed,
        "usage": provenance.usage,
        "expected": provenance.expected,
        "chosen": chosen,
        "refined": None if proposal.refined is None else proposal.refined.to_dict(),
        "report": files.provenance["report"],
    }
    return Packaged(files, adapter, summary, checked.milliseconds, request.profile)
