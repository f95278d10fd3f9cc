"""Generating: an adapter from a generator's checkpoint, in one forward pass.

Descriptions are embedded alone and the generator runs in float64, so the bytes depend on the
request, the checkpoint, the layout and the numerics, and on nothing else; those of a generator that
asks the base depend on the base's numerics as well.
"""

from typing import Any

import torch

from generator.models.base import Condition, Generator, reads_examples
from generator.request import ONLY_EXAMPLES, Query
from generator.resources import Fit, Resources
from generator.strategies.base import NothingNear, Offer, Proposal, Strategy
from generator.strategies.evidence import Evidence, shipped_evidence
from generator.strategies.multi_task import MultiTask
from index.encoders.texts import is_base_states
from library.adapter import stack, summed
from library.base.models import BaseReference, base_layout, numerics, same_base
from library.checkpoint import Checkpoint
from library.errors import LayoutMismatch, UsageError


class Generated(Strategy):
    """A loaded generator, under its own name.

    Args:
        checkpoint: the generator, which is moved to float64.
        resources: the library, for generators that need experts, and where it runs.
        single: the multi-task adapter, which adapters of some checkpoints are added to.
    """

    def __init__(
        self,
        checkpoint: Checkpoint[Generator],
        resources: Resources,
        single: MultiTask,
    ) -> None:
        self.checkpoint, self.single = checkpoint, single
        self.name = checkpoint.kind
        self.module = checkpoint.module.to(device=resources.device, dtype=torch.float64)
        self.uses_examples = reads_examples(self.module)
        self.read_by_base = is_base_states(checkpoint.info.encoder)  # the base reads descriptions
        self.fit = Fit(self._require_fit)
        self._resources = resources

    def unavailable(self, base: BaseReference) -> str:
        return self.fit.misfit(base)

    def offer(self, base: BaseReference) -> Offer | None:
        if self.unavailable(base):
            return None
        info = self.checkpoint.info
        layout = self.module.layout
        if info.onto:
            layout = self.single.stored(base).adapter_for(base).layout.joined(layout)
        return Offer(self.checkpoint.digest, info.base["id"], layout)

    def evidence(self, base: BaseReference) -> Evidence:
        info = self.checkpoint.info
        return shipped_evidence(self.name, self.checkpoint.digest, len(info.tasks))

    def refusal(self, query: Query) -> str:
        needs = self.module.needs
        if query.request.description is None and {"description", "task"} & needs:
            return ONLY_EXAMPLES
        if "experts" not in needs or self.unavailable(query.base):
            return ""
        nearest = query.nearest_experts(self.module.top_k)
        if not nearest:
            return f"the library holds no other adapter that {self.name} could use"
        if nearest[0].similarity < self.module.floor:
            return (
                f"nothing in the library is near enough for {self.name}: the nearest description, "
                f"of {nearest[0].task}, has similarity {nearest[0].similarity:.2f}, and "
                f"{self.module.floor:.2f} is needed"
            )
        return ""

    @torch.inference_mode()
    def propose(self, query: Query) -> Proposal:
        """Raises NothingNear where the library holds nothing near; else as all strategies do."""
        self.fit.require(query.base)
        refusal = self.refusal(query)
        if refusal:
            raise UsageError(refusal) if refusal == ONLY_EXAMPLES else NothingNear(refusal)
        needs = self.module.needs
        condition = query.condition(self.module, self.checkpoint.info.encoder)
        adapter, details = self.module(condition), self._texts_read(query, condition)
        if self.checkpoint.info.onto:
            single = self.single.stored(query.base).adapter_for(query.base)
            static = single.to(self._resources.device, torch.float64)
            adapter, details["onto"] = summed(static, adapter), self.checkpoint.info.onto
        parents = None
        if "experts" in needs:
            parents = [neighbour.id for neighbour in query.nearest_experts(self.module.top_k)]
        return Proposal(
            adapter,
            self.chosen(query, query.similarity),
            self.usage(query.request),
            checkpoint=self.checkpoint.digest,
            parents=parents,
            details=details,
            tried_in=numerics(query.model.model) if {"task", "base"} & needs else None,
            saw_examples=self.uses_examples and bool(query.request.examples),
        )

    def _texts_read(self, query: Query, condition: Condition) -> dict[str, Any]:
        """What provenance says of the texts in a condition."""
        text, examples = condition.text, condition.examples
        if text is None and examples is None:
            return {}
        reader = query.resources.reader(self.checkpoint.info.encoder, query.base)
        details: dict[str, Any] = {"encoder": reader.name}
        if text is not None:
            details["encoder_windows"] = len(reader.windows(query.description))
        if examples is not None:
            details["examples_read"] = examples.count
        return details

    def _require_fit(self, base: BaseReference) -> None:
        layout = self.module.layout
        if layout.model_type:
            base_layout(base, layout).require_same(
                layout, f"base model '{base.name}'", f"the {self.name} checkpoint"
            )
        elif not same_base(base.name, made_for := self.checkpoint.info.base["id"]):
            # Of a family whose configs we do not read; a name is all that there is to compare.
            raise LayoutMismatch(f"the {self.name} checkpoint is for {made_for}, not {base.name}")
        if self.checkpoint.info.onto:
            self._require_single(base)
        if "task" in self.module.needs:
            self._require_vectors()
        if "experts" in self.module.needs:
            self._require_library(base)

    def _require_single(self, base: BaseReference) -> None:
        """Raise LayoutMismatch unless the adapter that its own are added to is here."""
        onto, missing = self.checkpoint.info.onto, self.single.unavailable(base)
        if not missing and (here := self.single.stored(base).weights_digest) != onto:
            missing = f"the one here is {here[:12]}"
        if missing:
            raise LayoutMismatch(
                f"adapters of this {self.name} checkpoint are added to the multi-task adapter "
                f"{onto[:12]}: {missing}"
            )

    def _require_vectors(self) -> None:
        """Raise UsageError if it was trained on task vectors that no request has."""
        data = self.checkpoint.info.training.get("data") or {}
        if (data.get("vectors") or {}).get("kind") == "adapted":
            raise UsageError(
                f"this {self.name} checkpoint was trained on task vectors of the base with the "
                "task's own adapter, which no request has: train one with vectors.kind in-context"
            )

    def _require_library(self, base: BaseReference) -> None:
        """Raise UsageError or LayoutMismatch unless there is a library of experts for it."""
        if self._resources.library is None:
            raise UsageError(f"{self.name} needs a library of adapters, and there is none")
        retriever = self._resources.retriever(base)
        location, encoder = retriever.folder.location, self.checkpoint.info.encoder
        retriever.plan.layout.require_same(
            self.module.layout, f"the library {location}", f"the {self.name} checkpoint"
        )
        if encoder != retriever.encoder.name:
            raise UsageError(
                f"{self.name} was trained on similarities of {encoder}, and the library is "
                f"searched with {retriever.encoder.name}"
            )
        if len({record["task"] for record in retriever.experts}) < 2:
            raise UsageError(
                f"{self.name} needs a library with adapters of two tasks or more, of one layout; "
                f"{location} has fewer"
            )
        some = retriever.experts[: self.module.top_k]
        self.module.require_same_start(stack([retriever.adapter(r["id"]) for r in some]))
