"""AdamW over many adapters, each with its own step count, learning rate, clipping and divergence.

The parameters of n adapters (A and B, or what a recipe's form makes them of) are stacked along the
leading axis, and so are the optimiser's moments: one step is a handful of tensor operations,
whatever n is. Nothing is shared along that axis, unless the form says so: each adapter moves as it
would alone (Loshchilov & Hutter 2019, algorithm 2).
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from library.adapter import Adapter, rank_mask, zeros
from library.errors import UsageError
from library.layout import Group, Layout
from library.trainer.recipes.recipe import FormParameters, Recipe
from library.trainer.recipes.updates import UPDATES

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


class StackedAdamW:
    """n slots of adapters that train side by side.

    Attributes:
        groups: the recipe's parameters of each group, `[slots, ...]`; those that all slots have in
            common `[1, ...]`.
        parameters: the same in a row, each name for all groups in turn.

    Args:
        start: what every adapter starts from (n = 1): A, and B (zero).
        slots: n.
        recipe: form, rates, scale, clipping.
        seed: of what else a form starts from.
    """

    def __init__(self, start: Adapter, slots: int, recipe: Recipe, *, seed: int = 0) -> None:
        self.layout, self.recipe = start.layout, recipe
        generator = torch.Generator().manual_seed(seed)
        pairs = [(start.A[group.key], start.B[group.key]) for group in self.layout.groups]
        initial = [recipe.parametrise(a, b, generator) for a, b in pairs]
        self.groups = [
            {name: self._stacked(name, value, slots) for name, value in group.items()}
            for group in initial
        ]
        self._names = [name for name in initial[0] for _ in initial]
        self._initial = [group[name] for name in initial[0] for group in initial]
        self.parameters = [group[name] for name in initial[0] for group in self.groups]
        self._exp_avg = [torch.zeros_like(p) for p in self.parameters]
        self._exp_avg_sq = [torch.zeros_like(p) for p in self.parameters]
        device = self.parameters[0].device
        self._steps = torch.zeros(slots, device=device, dtype=torch.float64)
        self._common_steps = self._steps.new_zeros(1)
        columns = zip(self.layout.groups, pairs, strict=True)
        self._scales = [column_scale(group, recipe).to(b) for group, (_, b) in columns]

    def _stacked(self, name: str, value: Tensor, slots: int) -> Tensor:
        stacked = value.repeat(1 if name in self.recipe.over_slots else slots, 1, 1, 1)
        return stacked.requires_grad_(name not in self.recipe.frozen)

    def __len__(self) -> int:
        return len(self._steps)

    def adapters(self) -> Adapter:
        """The adapters as they act, scale in B; differentiable in `parameters`."""
        pairs = [self.recipe.expand(group) for group in self.groups]
        return acting(self.layout, (a for a, _ in pairs), (b for _, b in pairs), self._scales)

    @torch.no_grad()
    def reset(self, slot: int, start: Adapter | None = None) -> None:
        """Put an adapter into a slot, the shared start by default.

        Raises LayoutMismatch if it is of another layout, UsageError if the recipe's form does not
        hold every adapter.
        """
        values = self._initial if start is None else self._trained_form(start)
        for i, value in enumerate(values):
            if self._names[i] not in self.recipe.over_slots:
                for stacked in (self._exp_avg[i], self._exp_avg_sq[i]):
                    stacked[slot] = 0
                self.parameters[i][slot] = value[0]
        self._steps[slot] = 0

    @torch.no_grad()
    def change(
        self, slots: list[int], change: Callable[[int, FormParameters], FormParameters]
    ) -> None:
        """Put what `change` makes of each group's parameters in some slots back into them."""
        for number, group in enumerate(self.groups):
            own = {k: v[slots] for k, v in group.items() if k not in self.recipe.over_slots}
            for name, value in change(number, own).items():
                group[name][slots] = value

    def _trained_form(self, adapter: Adapter) -> list[Tensor]:
        """An adapter's factors as they are trained: A, and B without the scale.

        The same ΔW, balanced: AdamW moves every entry by about the rate, so A is given the size of
        the shared start's, which rates were chosen for, and B the inverse factor.
        """
        self.layout.require_same(adapter.layout, "the adapter to go on from", "the trainer")
        if not self.recipe.is_plain:
            raise UsageError(f"recipe '{self.recipe.name}' cannot go on from an adapter")
        pairs = zip(adapter.factors(), self._initial, strict=True)
        moved = [value.to(like.device, like.dtype) for value, like in pairs]
        a, b = moved[: len(self.groups)], moved[len(self.groups) :]
        start = self._initial[: len(self.groups)]
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
        """Move by the gradients that lie on `parameters`, and clear them.

        Args:
            rates: learning rate of each slot's A now; 0 leaves the slot as it is.
        Returns:
            Which slots' gradients were finite; a slot whose were not has not moved.
        """
        gradients = {i: p.grad for i, p in enumerate(self.parameters) if p.grad is not None}
        for parameter in self.parameters:
            parameter.grad = None
        common = {i for i in gradients if self._names[i] in self.recipe.over_slots}
        own = {i: gradient for i, gradient in gradients.items() if i not in common}
        finite = self._move(own, rates, self._steps)
        # What the slots have in common moves by the mean of their gradients, at their mean rate.
        trained = [rate for rate in rates if rate > 0]
        if common and trained:
            means = {i: gradients[i] / len(trained) for i in sorted(common)}
            self._move(means, [sum(trained) / len(trained)], self._common_steps)
        return finite

    def _move(
        self, gradients: dict[int, Tensor], rates: Sequence[float], steps: Float[Tensor, " slots"]
    ) -> Bool[Tensor, " slots"]:
        """A step of some parameters, by their gradients; which slots' were finite."""
        # 1. Which slots move: (slots, ·) of each parameter to (parameters, slots) to (slots,)
        norm = torch.stack([g.flatten(1).norm(dim=1) for g in gradients.values()]).norm(dim=0)
        finite = norm.isfinite()
        lr = torch.tensor(rates, device=norm.device, dtype=norm.dtype)
        moving = finite & (lr > 0)
        steps += moving
        # 2. Clip each slot's gradient to its own norm: g ← g · min(1, clip / ‖g‖).
        clip_coef = (self.recipe.clip / (norm + 1e-6)).clamp(max=1.0)
        clipped = {i: g * _column(clip_coef.to(g.dtype)) for i, g in gradients.items()}
        # 3. The update rule, on A and B together.
        rule, scale = UPDATES[self.recipe.update], self.recipe.scale(self.layout.rank)
        if rule is not None:
            for i, group in enumerate(self.groups):
                j = i + len(self.groups)
                a, b = group["A"], group["B"]
                clipped[i], clipped[j] = rule(a, b, clipped[i], clipped[j], scale)
        # 4. AdamW, one by one; LoRA+ moves B at a multiple of A's rate.
        for i, gradient in clipped.items():
            b_rate = self.recipe.b_rate if self._names[i] == "B" else 1.0
            self._update(i, gradient, (lr * b_rate).to(gradient.dtype), moving, steps)
        return finite

    def _update(
        self,
        i: int,
        grad: Float[Tensor, "slots sites rows columns"],
        lr: Float[Tensor, " slots"],
        moving: Bool[Tensor, " slots"],
        steps: Float[Tensor, " slots"],
    ) -> None:
        """AdamW's step of one parameter, in the slots that move."""
        parameter, dtype, step = self.parameters[i], self.parameters[i].dtype, steps.clamp(min=1)
        # m ← β₁·m + (1 − β₁)·g
        exp_avg = self._exp_avg[i].lerp(grad, 1 - BETA1)
        # v ← β₂·v + (1 − β₂)·g²
        exp_avg_sq = self._exp_avg_sq[i] * BETA2 + grad * grad * (1 - BETA2)
        # Both start at zero: m̂ = m / (1 − β₁ᵗ), √v̂ = √v / √(1 − β₂ᵗ)
        bias_correction1 = _column((1 - BETA1**step).to(dtype))
        bias_correction2_sqrt = _column((1 - BETA2**step).sqrt().to(dtype))
        denom = exp_avg_sq.sqrt() / bias_correction2_sqrt + EPSILON
        # θ ← θ·(1 − lr·λ) − lr·m̂ / (√v̂ + ε)
        decayed = parameter * (1 - _column(lr) * self.recipe.weight_decay)
        updated = decayed - _column(lr) / bias_correction1 * exp_avg / denom
        old = (self._exp_avg[i], self._exp_avg_sq[i], parameter)
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
