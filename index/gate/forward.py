"""The forward under a gate: shares computed at each site, with what the gate keeps of a request."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import DynamicCache

from index.gate.prototypes import Scorer
from index.gate.systems import System
from index.gate.takes import taken
from library.adapter import Adapter
from library.base.multi_adapter import MultiAdapter
from library.layout import Layout


class GateCache(DynamicCache):
    """A cache that also holds, row by row, what a gate needs of the tokens before.

    Attributes:
        first: keys and values of the first pass.
        kept: shares of a site that are computed once a request, (rows, 1, experts).
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config=config)
        self.first = DynamicCache(config=config)
        self.kept: dict[str, Tensor] = {}

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self.first.batch_select_indices(indices)
        self.kept = {name: shares[indices] for name, shares in self.kept.items()}


class GatedAdapter(MultiAdapter):
    """Hooks whose mixture is the gate's choice. Decoding and losses take them as any others.

    Args:
        model: the base, a causal LM of transformers.
        gate: scores the experts by a site's name and what is read there.
        system: what it reads and how it takes.
        layout: of the experts.
    Raises ValueError in a pass with a cache that is none of the gate's, if it needs one.

    Attributes:
        prompt: positions of the prompts in the passes that follow; None where all tokens are.
        chosen: of the last pass, each site's softmax over experts and their shares.
    """

    def __init__(self, model: Any, gate: Scorer, system: System, layout: Layout) -> None:
        super().__init__(model, layout)
        self.gate, self.system = gate, system
        self.prompt: Bool[Tensor, "batch length"] | None = None
        self.chosen: dict[str, tuple[Tensor, Tensor]] = {}
        self._cache: GateCache | None = None
        self._states = self._mask = self._prior = None
        self._first_pass = False
        if system.reads != "token":
            hook = model.get_decoder().register_forward_pre_hook(self._before, with_kwargs=True)
            self._handles.append(hook)

    def set_mixture(self, adapter: Adapter, weights: Float[Tensor, "batch n"]) -> None:
        """Let the gate choose among experts; weight 0 keeps one out of a row, 1 changes nothing.

        Others multiply the odds. An adapter's weight is that of all its experts.
        Raises LayoutMismatch if the experts have another layout.
        """
        each = len(adapter) // weights.shape[1]
        self._prior = weights.log().repeat_interleave(each, dim=1)[:, None]  # (batch, 1, experts)
        self.set_shares(adapter, self._choose)

    def _choose(self, name: str, x: Tensor) -> Tensor | None:
        """Shares of the experts at a site, for each token or each row."""
        if self._first_pass:
            return None
        kept = {} if self._cache is None else self._cache.kept
        if name in kept:
            return kept[name]
        assert self._prior is not None, "shares are set with the prior"
        scores = self.gate(name, self._read(x))
        _, shares = self.chosen[name] = taken(self.system, scores, self._prior.to(scores))
        if self.system.reads == "prompt" and self._cache is not None:
            kept[name] = shares
        return shares

    def _read(self, x: Float[Tensor, "batch length i"]) -> Float[Tensor, "batch rows w"]:
        if self.system.reads == "token":
            return x
        if self.system.reads == "first-pass":
            assert self._states is not None, "a pass begins with the first one"
            return self._states
        mask = torch.ones_like(x[..., 0]) if self._mask is None else self._mask
        mask = (mask if self.prompt is None else self.prompt)[..., None]  # (batch, length, 1)
        return (x * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True)

    def _before(self, decoder: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Put our cache in place, and run the first pass, before the base's layers run."""
        if self._first_pass or self._prior is None:
            return None
        cache = kwargs.get("past_key_values")
        if cache is None and kwargs.get("use_cache"):
            cache = GateCache(decoder.config)
        if cache is not None and not isinstance(cache, GateCache):
            raise ValueError("a gate needs a cache of its own: give none")
        self._cache, self._mask = cache, kwargs.get("attention_mask")
        if self.system.reads == "first-pass":
            first = {**kwargs, "past_key_values": None if cache is None else cache.first}
            self._first_pass = True
            try:
                with torch.no_grad():
                    self._states = decoder(*args, **first).last_hidden_state
            finally:
                self._first_pass = False
        return args, {**kwargs, "past_key_values": cache}


@contextmanager
def gated(model: Any, gate: Scorer, system: System, experts: Adapter) -> Iterator[None]:
    """The gate's choice among all experts on one row, inside the `with` block."""
    with closing(GatedAdapter(model, gate, system, experts.layout)) as hooks:
        hooks.set_mixture(experts, torch.ones(1, len(experts)))
        yield
