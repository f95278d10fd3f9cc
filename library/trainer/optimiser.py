"""AdamW over many adapters at once, each with its own clock, rate, clipping and fate.

The factors of n adapters are stacked along the leading axis, and so is everything that an optimiser
knows about them: one step is a handful of tensor operations, whatever n is. Nothing is shared along
that axis, so each adapter moves as it would alone (Loshchilov & Hutter 2019, algorithm 2).
"""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from library.adapter import Adapter, rank_mask
from library.layout import Group, Layout
from library.trainer.recipes import Recipe

BETAS = (0.9, 0.999)
EPSILON = 1e-8


class StackedAdamW:
    """n slots of adapters that train side by side.

    Args:
        start: what every adapter starts from (n = 1): A, and B (zero).
        slots: n.
        recipe: rates, scale, clipping.
    """

    def __init__(self, start: Adapter, slots: int, recipe: Recipe) -> None:
        self.layout, self.recipe = start.layout, recipe
        self._start = start.factors()
        self._a_count = len(start.A)
        self.factors = [f.repeat(slots, 1, 1, 1).requires_grad_() for f in self._start]
        if recipe.freeze_a:
            for factor in self.factors[: self._a_count]:
                factor.requires_grad_(False)
        self._first = [torch.zeros_like(f) for f in self.factors]
        self._second = [torch.zeros_like(f) for f in self.factors]
        self._clock = torch.zeros(slots, device=self.factors[0].device, dtype=torch.float64)
        columns = zip(self.layout.groups, self.factors[self._a_count :], strict=True)
        self._scales = [column_scale(group, recipe).to(b) for group, b in columns]

    def __len__(self) -> int:
        return len(self._clock)

    def adapters(self) -> Adapter:
        """The adapters as they act, scale in B; differentiable in `factors`."""
        a, b = self.factors[: self._a_count], self.factors[self._a_count :]
        return acting(self.layout, a, b, self._scales)

    @torch.no_grad()
    def reset(self, slot: int) -> None:
        """Put a fresh adapter into a slot."""
        for factor, start in zip(self.factors, self._start, strict=True):
            factor[slot] = start[0]
        for moments in (*self._first, *self._second):
            moments[slot] = 0
        self._clock[slot] = 0

    @torch.no_grad()
    def step(self, rates: Sequence[float]) -> Bool[Tensor, " slots"]:
        """Move by the gradients that lie on `factors`, and clear them.

        Args:
            rates: learning rate of each slot now; 0 leaves the slot as it is.
        Returns:
            Which slots' gradients were finite; a slot whose were not has not moved.
        """
        trained = [i for i, factor in enumerate(self.factors) if factor.grad is not None]
        gradients = {i: self._gradient(i) for i in trained}
        norm = _norms([gradients[i] for i in trained])
        finite = norm.isfinite()
        rate = torch.tensor(rates, device=norm.device, dtype=norm.dtype)
        moving = finite & (rate > 0)
        self._clock += moving
        shrink = (self.recipe.clip / (norm + 1e-6)).clamp(max=1.0)
        for i in trained:
            dtype = self.factors[i].dtype
            gradient = gradients[i] * _wide(shrink.to(dtype))
            faster = self.recipe.b_rate if i >= self._a_count else 1.0
            self._move(i, gradient, (rate * faster).to(dtype), moving)
        return finite

    def _move(
        self,
        i: int,
        gradient: Float[Tensor, "slots sites rows columns"],
        rate: Float[Tensor, " slots"],
        moving: Bool[Tensor, " slots"],
    ) -> None:
        factor, dtype = self.factors[i], self.factors[i].dtype
        first = self._first[i].lerp(gradient, 1 - BETAS[0])
        second = self._second[i] * BETAS[1] + gradient * gradient * (1 - BETAS[1])
        clock = self._clock.clamp(min=1)
        bias_first = _wide((1 - BETAS[0] ** clock).to(dtype))
        bias_second = _wide((1 - BETAS[1] ** clock).sqrt().to(dtype))
        decayed = factor * (1 - _wide(rate) * self.recipe.weight_decay)
        moved = decayed - _wide(rate) / bias_first * first / (second.sqrt() / bias_second + EPSILON)
        wide = _wide(moving)
        for kept, new in ((self._first[i], first), (self._second[i], second), (factor, moved)):
            kept.copy_(torch.where(wide, new, kept))

    def _gradient(self, i: int) -> Float[Tensor, "slots sites rows columns"]:
        gradient, self.factors[i].grad = self.factors[i].grad, None
        assert gradient is not None
        return gradient


def shared_start(layout: Layout, seed: int, dtype: torch.dtype = torch.float32) -> Adapter:
    """What every adapter of a library starts from: A Kaiming-uniform as in PEFT, B zero.

    One A for all adapters of a library (its seed is in the records): with an A of its own for each,
    differences between factors would say nothing.
    """
    generator = torch.Generator().manual_seed(seed)
    a, b = {}, {}
    for group in layout.groups:
        sites, bound = len(group.sites), group.in_features**-0.5
        shape = (1, sites, group.rank, group.in_features)
        uniform = torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1
        a[group.key] = (uniform * bound * rank_mask(group)[None, :, :, None]).to(dtype)
        b[group.key] = torch.zeros(1, sites, group.out_features, group.rank, dtype=dtype)
    return Adapter(layout, a, b)


def acting(
    layout: Layout, a: Iterable[Tensor], b: Iterable[Tensor], scales: Iterable[Tensor]
) -> Adapter:
    """Adapters of trained factors, one for each group; their scale goes to B's columns."""
    keys = [group.key for group in layout.groups]
    scaled = [factor * scale for factor, scale in zip(b, scales, strict=True)]
    return Adapter(layout, dict(zip(keys, a, strict=True)), dict(zip(keys, scaled, strict=True)))


def column_scale(group: Group, recipe: Recipe) -> Float[Tensor, "sites 1 rank"]:
    """The scale of each column of B; zero beyond a site's own rank, so that padding stays zero."""
    scale = torch.tensor([recipe.scale(site.rank) for site in group.sites])
    return scale[:, None, None] * rank_mask(group)[:, None, :]


def _norms(gradients: Sequence[Tensor]) -> Float[Tensor, " slots"]:
    """The norm of each slot's gradient over all factors."""
    return torch.stack([g.flatten(1).norm(dim=1) for g in gradients]).norm(dim=0)


def _wide(values: Tensor) -> Tensor:
    return values[:, None, None, None]
