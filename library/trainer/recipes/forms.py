"""Forms: what is trained in place of A and B, from which they are made at every step.

Each ties or multiplies the factors of one group, that is of one module type of one shape over all
layers. What it makes is plain LoRA of the given rank, so nothing is lost when it is stored. A form
is a class here and a name in FORMS.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from library.errors import UsageError
from library.layout import Layout
from library.trainer.recipes.recipe import FormParameters, Recipe, StackedPair

LEVELS = ("global", "middle", "layer")  # of MSPLoRA


@dataclass(frozen=True)
class ShareLoRA(Recipe):
    """ShareLoRA (Song et al. 2024): one A for all layers, a B for each."""

    tied: ClassVar[str] = "A"

    def parametrise(self, a: Tensor, b: Tensor, generator: torch.Generator) -> FormParameters:
        return {name: v[:, :1] if name == self.tied else v for name, v in (("A", a), ("B", b))}

    def expand(self, p: FormParameters) -> StackedPair:
        sites = max(p["A"].shape[1], p["B"].shape[1])
        return p["A"].expand(-1, sites, -1, -1), p["B"].expand(-1, sites, -1, -1)


@dataclass(frozen=True)
class ShareB(ShareLoRA):
    """The same with one B, and an A for each layer."""

    tied: ClassVar[str] = "B"


@dataclass(frozen=True)
class MoSLoRA(Recipe):
    """MoSLoRA (Wu et al. 2024): ΔW = B·M·A, the mixer M of rank × rank trained too."""

    def parametrise(self, a: Tensor, b: Tensor, generator: torch.Generator) -> FormParameters:
        mixer = _uniform((*a.shape[:2], a.shape[2], a.shape[2]), a, generator)
        return {"A": a, "mixer": mixer, "B": b}

    def expand(self, p: FormParameters) -> StackedPair:
        return p["A"], p["B"] @ p["mixer"]


@dataclass(frozen=True)
class MultiLoRA(Recipe):
    """MultiLoRA (Wang et al. 2023): two LoRAs of half the rank, side by side.

    B starts random as A does; a scale of each output in each part starts at zero.
    """

    def require_fit(self, layout: Layout, steps: int) -> None:
        super().require_fit(layout, steps)
        if layout.rank % 2:
            raise UsageError(f"recipe 'multi-lora' takes an even rank, not {layout.rank}")

    def parametrise(self, a: Tensor, b: Tensor, generator: torch.Generator) -> FormParameters:
        return {
            "A": a,
            "B": _uniform(b.shape, b, generator),
            "scales": torch.zeros_like(b[..., :2]),
        }

    def expand(self, p: FormParameters) -> StackedPair:
        parts = p["B"].unflatten(-1, (2, -1)) * p["scales"][..., None]  # (n, sites, out, 2, rank/2)
        return p["A"], parts.flatten(-2)


@dataclass(frozen=True)
class LoTR(Recipe):
    """LoTR (Bershatsky et al. 2024): ΔW = U·G·V, U and V for all layers, a core G for each."""

    def parametrise(self, a: Tensor, b: Tensor, generator: torch.Generator) -> FormParameters:
        cores = a.new_zeros((*a.shape[:2], a.shape[2], a.shape[2]))
        return {"U": _uniform(b[:, :1].shape, b, generator), "cores": cores, "V": a[:, :1]}

    def expand(self, p: FormParameters) -> StackedPair:
        return p["V"].expand(-1, p["cores"].shape[1], -1, -1), p["U"] @ p["cores"]


@dataclass(frozen=True)
class MSPLoRA(Recipe):
    """MSPLoRA (Zhao et al. 2025): a LoRA for all layers, one for each third of them, one for each.

    They lie side by side, each of about half the rank of the one before.
    """

    def parametrise(self, a: Tensor, b: Tensor, generator: torch.Generator) -> FormParameters:
        rank, sites = a.shape[2], a.shape[1]
        middle, own = 2 * rank // 7, max(1, rank // 7)
        ranks, counts = [rank - middle - own, middle, own], [1, min(3, sites), sites]
        levels = zip(LEVELS, a.split(ranks, 2), b.split(ranks, 3), counts, strict=True)
        sides = {level: {"A": x[:, :n], "B": y[:, :n]} for level, x, y, n in levels}
        return {f"{side}_{level}": v for level, pair in sides.items() for side, v in pair.items()}

    def expand(self, p: FormParameters) -> StackedPair:
        layers = torch.arange(p["A_layer"].shape[1], device=p["A_layer"].device)
        a, b = [p[f"A_{level}"] for level in LEVELS], [p[f"B_{level}"] for level in LEVELS]
        which = [layers * x.shape[1] // len(layers) for x in a]  # of a level's, for each layer
        return (
            torch.cat([x.index_select(1, i) for x, i in zip(a, which, strict=True)], dim=2),
            torch.cat([y.index_select(1, i) for y, i in zip(b, which, strict=True)], dim=3),
        )


@dataclass(frozen=True)
class FedSA(Recipe):
    """FedSA-LoRA (Guo et al. 2025): one A of all adapters that train at once, a B for each.

    An adapter so depends on those it trains beside, which are those of its shard.
    """

    over_slots: ClassVar[frozenset[str]] = frozenset({"A"})

    def expand(self, p: FormParameters) -> StackedPair:
        return p["A"].expand(len(p["B"]), -1, -1, -1), p["B"]


@dataclass(frozen=True)
class LoRASB(Recipe):
    """LoRA-SB (Ponkshe et al. 2024): ΔW = U·R·V, of which R, of rank × rank, alone is trained.

    U and V are the main directions of the first step's gradient G by randomised SVD: each pass has
    B = 0, where the gradient on it is G·Vᵀ, or A = 0, where it is Uᵀ·G. R starts so that ΔW is
    −G as far as it has the rank, of the size of AdamW's first step on the weight itself.
    """

    fixed: ClassVar[frozenset[str]] = frozenset({"U", "V"})
    passes: ClassVar[int] = 4

    def scale(self, rank: int) -> float:
        return 1.0

    def parametrise(self, a: Tensor, b: Tensor, generator: torch.Generator) -> FormParameters:
        return {"U": b, "R": a.new_zeros((*a.shape[:2], a.shape[2], a.shape[2])), "V": a}

    def expand(self, p: FormParameters) -> StackedPair:
        return p["V"], p["U"] @ p["R"]

    def started(
        self, number: int, seen: Sequence[StackedPair], rates: Tensor, group: int, p: FormParameters
    ) -> FormParameters:
        on_a, on_b = seen[group]
        if number % 2 == 0:
            one = torch.eye(on_a.shape[2]).to(on_a).expand_as(p["R"])
            return {"U": torch.linalg.qr(on_b).Q, "R": one, "V": torch.zeros_like(p["V"])}
        q, r = torch.linalg.qr(on_a.mT)  # (n, sites, in, rank), (n, sites, rank, rank)
        right, s, left = torch.linalg.svd(r)
        start = torch.zeros_like(p["R"])
        if number == self.passes - 1:
            length = rates * (on_a.shape[3] * on_b.shape[2]) ** 0.5  # of a step by ±rate everywhere
            relative = s / s.norm(dim=-1, keepdim=True).clamp(min=1e-30)
            start = torch.diag_embed(-length[:, None, None] * relative)
        return {"U": p["U"] @ left.mT, "R": start, "V": (q @ right).mT}


@dataclass(frozen=True)
class ASLoRA(ShareLoRA):
    """ASLoRA (Hu et al. 2024): one A for all layers; half-way the most similar Bs become one.

    Two by two, by the cosine of their means, until half of them are left; a layer's B is then the
    mean of those that it was put together with.
    """

    fixed: ClassVar[frozenset[str]] = frozenset({"shares"})

    def require_fit(self, layout: Layout, steps: int) -> None:
        super().require_fit(layout, steps)
        if steps < 2:
            raise UsageError("recipe 'as-lora' takes at least 2 steps")

    def first_result(self, steps: int) -> int:
        return steps // 2

    def parametrise(self, a: Tensor, b: Tensor, generator: torch.Generator) -> FormParameters:
        shares = torch.eye(b.shape[1]).to(b)[None, None]  # (1, 1, sites, sites)
        return {**super().parametrise(a, b, generator), "shares": shares}

    def expand(self, p: FormParameters) -> StackedPair:
        mean = (p["shares"][:, 0] @ p["B"].flatten(2)).view_as(p["B"])
        return super().expand({"A": p["A"], "B": mean})

    def midway(self, group: int, p: FormParameters) -> FormParameters:
        shares, b = p["shares"][0, 0], p["B"][0].flatten(1)  # (sites, sites), (sites, out·rank)
        for _ in range(len(b) // 2):
            means = functional.normalize(shares @ b, dim=1)
            nearest = (means @ means.T).masked_fill(shares > 0, -2.0).argmax()
            one, other = nearest // len(b), nearest % len(b)
            joined = (shares[one] + shares[other] > 0).to(b)
            shares = torch.where(joined[:, None] > 0, joined / joined.sum(), shares)
        return {"shares": shares[None, None]}


def _uniform(shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    """Kaiming-uniform, as A starts: its last axis is that of the inputs."""
    values = torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1
    return (values * shape[-1] ** -0.5).to(like)


FORMS = (
    ShareLoRA("share-lora", lr=2e-3),
    ShareB("share-lora-b", lr=2e-3),
    MoSLoRA("moslora", lr=2e-3),
    MultiLoRA("multi-lora", lr=2e-3),
    LoTR("lotr", lr=2e-3),
    MSPLoRA("msp-lora", lr=2e-3),
    FedSA("fedsa", lr=2e-3),
    LoRASB("lora-sb", lr=2e-3),
    ASLoRA("as-lora", lr=2e-3),
)
