"""Generating: an adapter from a generator's checkpoint, in one forward pass.

Descriptions are embedded alone and the generator runs in float64, so the bytes depend on the
request, the checkpoint, the layout and the numerics, and on nothing else; those of a generator that
asks the base depend on the base's numerics as well.
"""

import torch

from generator.models.base import Generator
from generator.request import Query
from generator.resources import Fit
from generator.strategies.base import Offer, Proposal, Strategy
from library.base.models import BaseReference, base_layout, numerics
from library.checkpoint import Checkpoint


class Generated(Strategy):
    """A loaded generator, under its own name.

    Args:
        checkpoint: the generator, which is moved to float64.
        device: where it runs.
    """

    def __init__(self, checkpoint: Checkpoint[Generator], device: str = "cpu") -> None:
        self.checkpoint = checkpoint
        self.name = checkpoint.kind
        self.module = checkpoint.module.to(device=device, dtype=torch.float64)
        self.uses_examples = self.module.reads_examples()
        self.fit = Fit(self._require_same_layout)

    def unavailable(self, base: BaseReference) -> str:
        return self.fit.misfit(base)

    def offer(self, base: BaseReference) -> Offer:
        info = self.checkpoint.info
        return Offer(self.checkpoint.digest, info.base["id"], self.module.layout)

    @torch.inference_mode()
    def propose(self, query: Query) -> Proposal:
        self.fit.require(query.base)
        encoder, needs = self.checkpoint.info.encoder, self.module.needs
        adapter = self.module(query.condition(needs, encoder))
        details = {}
        if "description" in needs:
            windows = query.resources.encoder(encoder).windows(query.description)
            details = {"encoder": encoder, "encoder_windows": len(windows)}
        return Proposal(
            adapter,
            self.chosen(query, query.similarity),
            self.usage(query.request),
            checkpoint=self.checkpoint.digest,
            details=details,
            tried_in=numerics(query.model.model) if {"task", "base"} & needs else None,
        )

    def _require_same_layout(self, base: BaseReference) -> None:
        layout = self.module.layout
        base_layout(base, layout).require_same(
            layout, f"base model '{base.name}'", f"the {self.name} checkpoint"
        )
