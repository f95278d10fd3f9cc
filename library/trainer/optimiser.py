"""AdamW over many adapters, each with its own step count, learning rate, clipping and divergence.

The factors of n adapters are stacked along the leading axis, and so are the optimiser's moments:
one step is a handful of tensor operations, whatever n is. Nothing is shared along that axis, so
each adapter moves as it would alone (Loshchilov & Hutter 2019, algorithm 2).
"""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from library.adapter import Adapter, rank_mask, zeros
from library.layout import Group, Layout
from library.trainer.recipes.recipe import Recipe

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


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
        # A (slots, sites, rank, in) of every group, then B (slots, sites, out, rank).
        self.factors = [f.repeat(slots, 1, 1, 1).requires_grad_() for f in self._start]
        if recipe.freeze_a:
            for factor in self.factors[: self._a_count]:
                factor.requires_grad_(False)
        self._exp_avg = [torch.zeros_like(f) for f in self.factors]
        self._exp_avg_sq = [torch.zeros_like(f) for f in self.factors]
        self._steps = torch.zeros(slots, device=self.factors[0].device, dtype=torch.float64)
        columns = zip(self.layout.groups, self.factors[self._a_count :], strict=True)
        self._scales = [column_scale(group, recipe).to(b) for group, b in columns]

    def __len__(self) -> int:
        return len(self._steps)

    def adapters(self) -> Adapter:
        """The adapters as they act, scale in B; differentiable in `factors`."""
        a, b = self.factors[: self._a_count], self.factors[self._a_count :]
        return acting(self.layout, a, b, self._scales)

    @torch.no_grad()
    def reset(self, slot: int, start: Adapter | None = None) -> None:
        """Put an adapter into a slot, the shared start by default.

        Raises LayoutMismatch if it is of another layout.
        """
        factors = self._start if start is None else self._trained_form(start)
        for factor, value in zip(self.factors, factors, strict=True):
            factor[slot] = value[0]
        for moments in (*self._exp_avg, *self._exp_avg_sq):
            moments[slot] = 0
        self._steps[slot] = 0

    def _trained_form(self, adapter: Adapter) -> list[Tensor]:
        """An adapter's factors as they are trained: A, and B without the scale.

        The same ΔW, balanced: AdamW moves every entry by about the rate, so A is given the size of
        the shared start's, which rates were chosen for, and B the inverse factor.
        """
        self.layout.require_same(adapter.layout, "the adapter to go on from", "the trainer")
        pairs = zip(adapter.factors(), self._start, strict=True)
        moved = [value.to(like.device, like.dtype) for value, like in pairs]
        a, b = moved[: self._a_count], moved[self._a_count :]
        start = self._start[: self._a_count]
        # (1, sites, 1, 1): norms of a site's A over those of the start's, 1 where A is zero.
        ratios = [
            _norms(x) / _norms(like).clamp(min=1e-30) for x, like in zip(a, start, strict=True)
        ]
        ratios = [torch.where(ratio > 0, ratio, 1.0) for ratio in ratios]
        scales = [torch.where(scale > 0, scale, 1.0) for scale in self._scales]
        return [
            *(x / ratio for x, ratio in zip(a, ratios, strict=True)),
            *(y * ratio / scale for y, ratio, scale in zip(b, ratios, scales, strict=True)),
        ]

    @torch.no_grad()
    def step(self, rates: Sequence[float]) -> Bool[Tensor, " slots"]:
        """Move by the gradients that lie on `factors`, and clear them.

        Args:
            rates: learning rate of each slot's A now; 0 leaves the slot as it is.
        Returns:
            Which slots' gradients were finite; a slot whose were not has not moved.
        """
        # 1. Take the gradients (n, sites, rows, columns); which slots move.
        gradients = {i: f.grad for i, f in enumerate(self.factors) if f.grad is not None}
        for factor in self.factors:
            factor.grad = None
        # (slots, ·) of each factor to (factors, slots) to (slots,)
        norm = torch.stack([g.flatten(1).norm(dim=1) for g in gradients.values()]).norm(dim=0)
        finite = norm.isfinite()
        lr = torch.tensor(rates, device=norm.device, dtype=norm.dtype)
        moving = finite & (lr > 0)
        self._steps += moving
        # 2. Clip each slot's gradient to its own norm: g ← g · min(1, clip / ‖g‖).
        clip_coef = (self.recipe.clip / (norm + 1e-6)).clamp(max=1.0)
        # 3. AdamW, factor by factor; LoRA+ moves B at a multiple of A's rate.
        for i, gradient in gradients.items():
            dtype = self.factors[i].dtype
            b_rate = self.recipe.b_rate if i >= self._a_count else 1.0
            self._update(
                i, gradient * _column(clip_coef.to(dtype)), (lr * b_rate).to(dtype), moving
            )
        return finite

    def _update(
        self,
        i: int,
        grad: Float[Tensor, "slots sites rows columns"],
        lr: Float[Tensor, " slots"],
        moving: Bool[Tensor, " slots"],
    ) -> None:
        """AdamW's step of one factor, in the slots that move."""
        factor, dtype, step = self.factors[i], self.factors[i].dtype, self._steps.clamp(min=1)
        # m ← β₁·m + (1 − β₁)·g
        exp_avg = self._exp_avg[i].lerp(grad, 1 - BETA1)
        # v ← β₂·v + (1 − β₂)·g²
        exp_avg_sq = self._exp_avg_sq[i] * BETA2 + grad * grad * (1 - BETA2)
        # Both start at zero: m̂ = m / (1 − β₁ᵗ), √v̂ = √v / √(1 − β₂ᵗ)
        bias_correction1 = _column((1 - BETA1**step).to(dtype))
        bias_correction2_sqrt = _column((1 - BETA2**step).sqrt().to(dtype))
        denom = exp_avg_sq.sqrt() / bias_correction2_sqrt + EPSILON
        # θ ← θ·(1 − lr·λ) − lr·m̂ / (√v̂ + ε)
        decayed = factor * (1 - _column(lr) * self.recipe.weight_decay)
        updated = decayed - _column(lr) / bias_correction1 * exp_avg / denom
        old = (self._exp_avg[i], self._exp_avg_sq[i], factor)
        for value, new in zip(old, (exp_avg, exp_avg_sq, updated), strict=True):
            value.copy_(torch.where(_column(moving), new, value))


def shared_start(layout: Layout, seed: int, dtype: torch.dtype = torch.float32) -> Adapter:
    """The start of every adapter of a library: A Kaiming-uniform as in PEFT, B zero.

    One A for all adapters of a library (its seed is in the records): with an A of its own for each,
    differences between factors would say nothing.
    """
    generator = torch.Generator().manual_seed(seed)
    a = {}
    for group in layout.groups:
        bound = group.in_features**-0.5
        shape = (1, len(group.sites), group.rank, group.in_features)
        uniform = torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1
        mask = rank_mask(group)[None, :, :, None]  # (1, sites, rank, 1)
        a[group.key] = (uniform * bound * mask).to(dtype)
    return Adapter(layout, a, zeros(layout, dtype=dtype).B)


def acting(
    layout: Layout, a: Iterable[Tensor], b: Iterable[Tensor], scales: Iterable[Tensor]
) -> Adapter:
    """Adapters of trained factors, one for each group; their scale goes to B's columns."""
    keys = [group.key for group in layout.groups]
    scaled = [factor * scale for factor, scale in zip(b, scales, strict=True)]
    return Adapter(layout, dict(zip(keys, a, strict=True)), dict(zip(keys, scaled, strict=True)))


def column_scale(group: Group, recipe: Recipe) -> Float[Tensor, "sites 1 rank"]:
    """The scale of each column of B; zero beyond a site's own rank, so that padding stays zero."""
    scale = torch.tensor([recipe.scale(site.rank) for site in group.sites])  # (sites,)
    return scale[:, None, None] * rank_mask(group)[:, None, :]  # (sites, 1, rank)


def _norms(factor: Float[Tensor, "n sites rows columns"]) -> Float[Tensor, "n sites 1 1"]:
    """Each site's Frobenius norm."""
    return factor.flatten(2).norm(dim=2)[..., None, None]


def _column(values: Tensor) -> Tensor:
    """One value a slot, to be multiplied with factors: (slots, 1, 1, 1)."""
    return values[:, None, None, None]
