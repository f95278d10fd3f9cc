"""The multi-adapter forward: a different adapter for each row of a batch, in one pass.

Forward hooks add x·Aᵀ·Bᵀ to the output of each target module; the base's own modules, weights and
state dict stay as they are. The same primitive serves training of generators, building of
libraries, evaluation and `generate`. It is differentiable in A and B.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from library.adapter import Adapter
from library.base.turns import turn
from library.errors import LayoutMismatch
from library.layout import Layout

# From a site's name and its input (batch, length, in) to the share of each of n adapters in each
# token (batch, length or 1, n); None for the base alone.
Shares = Callable[[str, Tensor], Tensor | None]


def lora_delta(
    x: Float[Tensor, "batch length in_features"],
    a: Float[Tensor, "batch rank in_features"],
    b: Float[Tensor, "batch out_features rank"],
) -> Float[Tensor, "batch length out_features"]:
    """x·Aᵀ·Bᵀ with one (A, B) per row of the batch (Hu et al. 2021, eq. 3; scale is in B)."""
    return torch.bmm(torch.bmm(x, a.mT), b.mT)  # through (batch, length, rank)


def packed_delta(
    x: Float[Tensor, "sequences length in_features"],
    a: Float[Tensor, "columns in_features"],
    b: Float[Tensor, "out_features columns"],
    shares: Float[Tensor, "sequences #length columns"],
) -> Float[Tensor, "sequences length out_features"]:
    """The same with one (A, B) per token: all adapters side by side, the others' ranks masked.

    Two dense products instead of a gather: n adapters of rank r cost as one of rank n·r, which a
    GPU does in passing while n·r is below the model's width, and gradients need no scatter.
    """
    return ((x @ a.mT) * shares) @ b.mT  # through (sequences, length, columns)


class MultiAdapter:
    """Hooks on a base model that apply a row's own adapter.

    Use `set` before a forward pass and `clear` after it, or the context manager `adapted`. With
    nothing set, the base answers as if there were no hooks. The factors hang on the modules
    themselves, so that torch.compile sees one graph for all layers.

    A model carries the adapters of one thread at a time: others wait until they are closed.

    Args:
        model: the base.
        layouts: of the adapters that are to act, those of one layout at a time.
    Raises:
        LayoutMismatch: the model lacks a module.
        ValueError: this thread's adapters are there already.
    """

    def __init__(self, model: nn.Module, *layouts: Layout) -> None:
        self._layouts = layouts
        self._modules: dict[str, nn.Module] = {}
        self._handles: list[RemovableHandle] = []
        self._turn = turn(model)
        self._turn.acquire()
        try:
            self._hook(dict(model.named_modules()))
        except BaseException:
            self._turn.release()
            raise
        self._open = True

    def _hook(self, modules: dict[str, nn.Module]) -> None:
        for site in (site for layout in self._layouts for site in layout.sites):
            module = modules.get(site.name)
            if module is None or _shape(module) != (site.in_features, site.out_features):
                raise LayoutMismatch(
                    f"the layout's {site.name} ({site.in_features} to {site.out_features}) does "
                    f"not exist in this {type(modules['']).__name__}"
                )
            if "lora_factors" in vars(module):
                raise ValueError("the model has adapters already; close them first")
            self._modules[site.name] = module
        self.clear()
        for module in self._modules.values():
            self._handles.append(module.register_forward_hook(_add_delta))

    def set(self, adapter: Adapter, rows: Int[Tensor, "batch"]) -> None:
        """Apply adapter `rows[i]` to row i of the batches that follow.

        Factors are cast to the floating-point type of the modules, or of their input if that
        is another.
        Raises LayoutMismatch if the adapter has another layout.
        """
        self._begin(adapter.layout)
        for group in adapter.layout.groups:
            dtype = _dtype(self._modules[group.sites[0].name])
            a = adapter.A[group.key].to(dtype).index_select(0, rows)  # (batch, sites, r, in)
            b = adapter.B[group.key].to(dtype).index_select(0, rows)  # (batch, sites, out, r)
            for site, site_a, site_b in zip(group.sites, a.unbind(1), b.unbind(1), strict=True):
                _attach(self._modules[site.name], (site_a, site_b))

    def set_each(self, adapters: Sequence[Adapter | None]) -> None:
        """Apply to row i an adapter of its own (n = 1), of whichever of the layouts, or none.

        Smaller ranks are filled up with zeros, and so is a row whose adapter lacks the module.
        """
        self.clear()
        own: dict[str, list[tuple[int, Tensor, Tensor]]] = defaultdict(list)
        for row, adapter in enumerate(adapters):
            if adapter is not None:
                for site in adapter.layout.sites:
                    a, b = adapter.site(site)
                    own[site.name].append((row, a[0], b[0]))
        for name, factors in own.items():
            module = self._modules[name]
            weight, dtype = module.get_parameter("weight"), _dtype(module) or factors[0][1].dtype
            rank, n = max(len(a) for _, a, _ in factors), len(adapters)
            in_features, out_features = factors[0][1].shape[1], factors[0][2].shape[0]
            all_a = torch.zeros(n, rank, in_features, dtype=dtype, device=weight.device)
            all_b = torch.zeros(n, out_features, rank, dtype=dtype, device=weight.device)
            for row, a, b in factors:
                all_a[row, : len(a)], all_b[row, :, : len(a)] = a, b
            _attach(module, (all_a, all_b))

    def set_packed(self, adapter: Adapter, owners: Int[Tensor, "sequences length"]) -> None:
        """Apply adapter `owners[i, j]` to token j of sequence i; none where it is -1.

        Raises LayoutMismatch if the adapter has another layout.
        """
        numbers = torch.arange(len(adapter), device=owners.device)
        self._set_columns(adapter, owners[..., None] == numbers)  # (sequences, length, n)

    def set_mixture(self, adapter: Adapter, weights: Float[Tensor, "batch n"]) -> None:
        """Apply Σ weights[i, j]·ΔW of adapter j to row i: any number of weighted sums in one pass.

        Raises LayoutMismatch if the adapters have another layout.
        """
        self._set_columns(adapter, weights[:, None, :])  # (batch, 1, n)

    def set_shares(self, adapter: Adapter, shares: Shares) -> None:
        """Apply Σ shares(site, x)[i, t, j]·ΔW of adapter j to token t of row i, site by site.

        `shares` is asked in every pass, by every site with its own input x. Differentiable in what
        it computes them from. Raises LayoutMismatch if the adapters have another layout.
        """
        self._set_columns(adapter, shares)

    def _set_columns(
        self, adapter: Adapter, shares: Shaped[Tensor, "batch #length n"] | Shares
    ) -> None:
        """Lay all adapters side by side, each with its share of every token."""
        self._begin(adapter.layout)
        for group in adapter.layout.groups:
            module = self._modules[group.sites[0].name]
            dtype = _dtype(module) or module.get_parameter("weight").dtype
            columns: Any = None
            if isinstance(shares, Tensor):
                columns = _columns(shares.to(dtype), group.rank)  # (batch, length, n·r)
            # (n, sites, r, in) to (sites, n·r, in); (n, sites, out, r) to (sites, out, n·r)
            a = adapter.A[group.key].to(dtype).transpose(0, 1).flatten(1, 2)
            b = adapter.B[group.key].to(dtype).permute(1, 2, 0, 3).flatten(2, 3)
            for site, site_a, site_b in zip(group.sites, a.unbind(0), b.unbind(0), strict=True):
                if not isinstance(shares, Tensor):
                    columns = partial(_asked, shares, site.name, group.rank)
                _attach(self._modules[site.name], (site_a, site_b, columns))

    def _begin(self, layout: Layout) -> None:
        """Clear the modules for adapters of a layout. Raises LayoutMismatch if it is unknown."""
        if layout.digest not in {known.digest for known in self._layouts}:
            self._layouts[0].require_same(layout, "the adapted model", "the adapter")
        if len(self._layouts) > 1:  # the last one may have had other modules
            self.clear()

    def clear(self) -> None:
        for module in self._modules.values():
            _attach(module, None)

    def close(self) -> None:
        """Remove the hooks, and every trace of them."""
        for handle in self._handles:
            handle.remove()
        for module in self._modules.values():
            module.__dict__.pop("lora_factors", None)
        if self._open:
            self._open = False
            self._turn.release()


def _columns(shares: Shaped[Tensor, "*n adapters"], rank: int) -> Shaped[Tensor, "*n columns"]:
    """An adapter takes up r columns side by side, all with its share."""
    return shares.repeat_interleave(rank, dim=-1)


def _asked(shares: Shares, name: str, rank: int, x: Tensor) -> Tensor | None:
    """The columns of a site for its input."""
    found = shares(name, x)
    return None if found is None else _columns(found, rank)


def _attach(module: nn.Module, factors: tuple[Any, ...] | None) -> None:
    object.__setattr__(module, "lora_factors", factors)


def _add_delta(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """Add what is attached: A, B, and for many adapters their columns, or what computes them."""
    factors: tuple[Any, ...] | None = module.__dict__["lora_factors"]
    if factors is None:
        return output
    x = args[0]
    if callable(factors[-1]):
        columns = factors[-1](x)
        if columns is None:
            return output
        factors = (*factors[:-1], columns)
    cast = [factor.to(x.dtype) for factor in factors]
    delta = lora_delta(x, *cast) if len(cast) == 2 else packed_delta(x, *cast)
    return output + delta.to(output.dtype)


@contextmanager
def adapted(model: nn.Module, adapter: Adapter, rows: Int[Tensor, "batch"]) -> Iterator[nn.Module]:
    """The model with adapter `rows[i]` on row i, inside the `with` block (`generate` included)."""
    with closing(MultiAdapter(model, adapter.layout)) as hooks:
        hooks.set(adapter, rows)
        yield model


@contextmanager
def adapted_each(model: nn.Module, adapters: Sequence[Adapter | None]) -> Iterator[nn.Module]:
    """The same with adapter i (n = 1) or none on row i, whatever their layouts."""
    layouts = {a.layout.digest: a.layout for a in adapters if a is not None}
    with closing(MultiAdapter(model, *layouts.values())) as hooks:
        hooks.set_each(adapters)
        yield model


def _dtype(module: nn.Module) -> torch.dtype | None:
    """The type of the weight; None (no cast) where that is not a floating-point number."""
    weight = module.get_parameter("weight")
    return weight.dtype if weight.is_floating_point() else None


def _shape(module: nn.Module) -> tuple[int, int] | None:
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    weight = getattr(module, "weight", None)
    if type(module).__name__ == "Conv1D" and isinstance(weight, Tensor):
        return weight.shape[0], weight.shape[1]
    return None
