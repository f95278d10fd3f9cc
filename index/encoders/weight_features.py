"""Features of an adapter that depend on ΔW alone: how it reads the inputs of its modules.

ΔWᵀΔW holds the directions of a module's input that an adapter reads, and how strongly. It is the
same for every factorisation (A, B) → (G⁻¹A, BG), every order and every padding of the ranks, and no
basis has to be chosen among equal or zero singular values. What an adapter writes (ΔWΔWᵀ) and ΔW
itself depend more on the A that its training began from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from library.adapter import Adapter
from library.errors import LayoutMismatch
from library.layout import Layout, Site
from library.peft.read import shape_of

# Modules inside one module that read one and the same vector. (In cross-attention the query reads
# another one than key and value; a mean of what they read tells adapters apart as well.)
_SAME_INPUT: Mapping[str, str] = {
    "q_proj": "qkv", "k_proj": "qkv", "v_proj": "qkv", "gate_proj": "mlp", "up_proj": "mlp",
}  # fmt: skip
SOFT = 1e-3  # below this share of ΔWᵀΔW the square root turns linear: its slope at 0 is finite


@dataclass(frozen=True)
class Input:
    """A vector inside the base, `width` long, and the target modules that read it."""

    width: int
    sites: tuple[Site, ...]


@dataclass(frozen=True)
class Reading:
    """ΔWᵀΔW of n adapters at one input, in factored form.

    Attributes:
        a: the factors A of its modules one below the other.
        core: BᵀB of each module, on the diagonal, scaled so that aᵀ·core·a is the mean over modules
            of ΔWᵀΔW / ‖ΔWᵀΔW‖.
        present: whether any ΔW of the input's modules is not zero.
    """

    a: Float[Tensor, "n r i"]
    core: Float[Tensor, "n r r"]
    present: Bool[Tensor, " n"]

    def rows(self) -> Float[Tensor, "n r i"]:
        """C with CᵀC = aᵀ·core·a."""
        values, vectors = torch.linalg.eigh(self.core)  # (n, r), (n, r, r)
        return (vectors * values.clamp_min(0).sqrt()[..., None, :]).mT @ self.a


def inputs_of(layout: Layout) -> tuple[Input, ...]:
    """The inputs that a layout's modules read, in its order."""
    readers: dict[tuple[str, str, int], list[Site]] = {}
    for site in layout.sites:
        inside, _, kind = site.name.rpartition(".")
        width = site.in_features * site.kernel
        readers.setdefault((inside, _SAME_INPUT.get(kind, kind), width), []).append(site)
    return tuple(Input(width, tuple(sites)) for (_, _, width), sites in readers.items())


def readings(adapter: Adapter, inputs: Sequence[Input]) -> list[Reading]:
    """The readings of n adapters at each input, in float64; modules that they lack are not present.

    Modules that read none of the inputs do not count. Raises LayoutMismatch if there are no others.
    """
    expected = {site.name: site for item in inputs for site in item.sites}
    known = [site for site in adapter.layout.sites if site.name in expected]
    if not known:
        types = sorted({other.module_type for other in expected.values()})
        raise LayoutMismatch(
            f"the adapter changes none of the {len(expected)} modules that the weight encoder "
            f"knows ({', '.join(types)})"
        )
    for site in known:
        other = expected[site.name]
        if shape_of(other) != shape_of(site):
            raise LayoutMismatch(
                f"the adapter's {site.name} is {site.in_features}x{site.out_features}; the weight "
                f"encoder's is {other.in_features}x{other.out_features}"
            )
    parts = _module_readings(adapter)
    return [_joint_reading(parts, item, adapter) for item in inputs]


def gram(reading: Reading, basis: Float[Tensor, "q i"]) -> Float[Tensor, "n q q"]:
    """ΔWᵀΔW in the directions of `basis`."""
    projected = reading.a @ basis.to(reading.a).mT  # (n, r, i) and (q, i) to (n, r, q)
    return projected.mT @ reading.core @ projected  # (n, q, q)


def features(grams: Float[Tensor, "*n q q"]) -> Float[Tensor, "*n q*(q+1)//2"]:
    """The entries of `gram` as a unit vector of signed square roots; zero where it is zero."""
    upper = torch.triu_indices(*grams.shape[-2:], device=grams.device)
    twice = torch.where(upper[0] == upper[1], 1.0, 2.0**0.5).to(grams)
    entries = grams[..., upper[0], upper[1]] * twice  # (*n, q, q) to (*n, q·(q + 1) / 2)
    return torch.nn.functional.normalize(entries / (entries.abs() + SOFT).sqrt(), dim=-1)


def width_of_features(q: int) -> int:
    """Entries of a symmetric q × q matrix."""
    return q * (q + 1) // 2


def _module_readings(adapter: Adapter) -> dict[str, Reading]:
    """The reading of each module alone, all modules of a group at once."""
    parts = {}
    for group in adapter.layout.groups:
        # a: (n, sites, r, i), b: (n, sites, o, r)
        a, b = adapter.A[group.key].double(), adapter.B[group.key].double()
        core = b.mT @ b  # (n, sites, r, r)
        inside = core @ (a @ a.mT)  # tr(inside²) = ‖ΔWᵀΔW‖²
        norm = (inside * inside.mT).sum(dim=(-2, -1)).clamp_min(0).sqrt()  # (n, sites)
        scaled = torch.where(norm > 0, 1 / norm, 0.0)[..., None, None] * core
        present = core.flatten(2).any(dim=2)  # (n, sites, r·r) to (n, sites)
        for i, site in enumerate(group.sites):
            parts[site.name] = Reading(a[:, i], scaled[:, i], present[:, i])
    return parts


def _joint_reading(parts: Mapping[str, Reading], item: Input, adapter: Adapter) -> Reading:
    """The mean over an input's modules; all zero, of rank 1, if the adapter has none of them."""
    readers = [parts[site.name] for site in item.sites if site.name in parts]
    if not readers:
        n, device = len(adapter), next(iter(adapter.A.values())).device
        empty = torch.zeros(n, 1, item.width, dtype=torch.float64, device=device)
        return Reading(empty, empty[..., :1], torch.zeros(n, dtype=torch.bool, device=device))
    present = torch.stack([part.present for part in readers])  # (modules, n)
    weight = 1 / present.sum(dim=0).clamp_min(1)  # (n,)
    # The blocks (n, r, r) on one diagonal: (n, r of all, r of all)
    core = _block_diagonal([part.core for part in readers]) * weight[:, None, None]
    # The ranks of all modules one below the other: (n, r of all, i)
    return Reading(torch.cat([part.a for part in readers], dim=1), core, present.any(dim=0))


def _block_diagonal(blocks: Sequence[Float[Tensor, "n _ _"]]) -> Float[Tensor, "n r r"]:
    """A block-diagonal matrix for each of n; torch.block_diag takes no batches."""
    sizes = [block.shape[-1] for block in blocks]
    matrix = blocks[0].new_zeros(len(blocks[0]), sum(sizes), sum(sizes))
    start = 0
    for block, size in zip(blocks, sizes, strict=True):
        matrix[:, start : start + size, start : start + size] = block
        start += size
    return matrix
