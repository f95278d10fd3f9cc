"""Layouts: the ordered target modules of a base model, with their shapes and ranks.

A layout is read from a model's config on the meta device, so no weights are loaded to learn
shapes. It is an explicit ordered tuple (a set would order itself by the process's hash seed), it
serialises to canonical JSON, and its SHA-256 is what adapters, libraries and checkpoints record.
"""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

from library.canonical import canonical_json, digest
from library.errors import LayoutMismatch, UnsupportedModel, UsageError

# Attention projections that read the layer's input, per family. Query and value where they are
# modules of their own (Hu et al. 2021, section 7.1), the fused projection where they are not.
_QUERY_AND_VALUE = (
    "cohere", "gemma", "gemma2", "gemma3_text", "granite", "llama", "mistral", "olmo2", "opt",
    "phi", "qwen2", "qwen3", "smollm3", "stablelm", "starcoder2",
)  # fmt: skip
DEFAULT_TARGETS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(_QUERY_AND_VALUE, ("q_proj", "v_proj")),
    "gpt2": ("c_attn",),
    "gpt_neox": ("query_key_value",),
    "phi3": ("qkv_proj",),
}
REFUSED = ("lm_head", "embed_out", "embed_tokens", "wte", "wpe", "embed_in")


@dataclass(frozen=True, slots=True)
class Site:
    """One target module. `transposed` marks GPT-2's Conv1D, whose weight is stored (in, out).

    `window` holds the sides of a convolution's kernel, as its weight has them; none otherwise.
    """

    name: str
    in_features: int
    out_features: int
    rank: int
    kernel: int = 1
    transposed: bool = False
    window: tuple[int, ...] = ()

    @property
    def module_type(self) -> str:
        return self.name.rsplit(".", 1)[-1]

    @property
    def depth(self) -> int:
        """The index of the layer that the module sits in: the first number in its path, else 0."""
        match = re.search(r"\.(\d+)\.", f".{self.name}.")
        return int(match.group(1)) if match else 0

    @property
    def full_rank(self) -> int:
        """The largest rank that its ΔW can have."""
        return min(self.in_features * self.kernel, self.out_features)

    @property
    def numbers_per_rank(self) -> int:
        """How many numbers of its factors A and B one rank is."""
        return self.in_features * self.kernel + self.out_features

    @property
    def numbers(self) -> int:
        """How many numbers its factors A and B are, at its rank."""
        return self.rank * self.numbers_per_rank


@dataclass(frozen=True, slots=True)
class Group:
    """The sites of one shape, whose factors are stacked in one tensor."""

    key: str
    module_type: str
    in_features: int  # times the kernel's size: the columns of A
    out_features: int
    rank: int  # the largest among the sites
    sites: tuple[Site, ...]
    indices: tuple[int, ...]  # where the sites stand in the layout


@dataclass(frozen=True)
class Layout:
    """The ordered target modules of one base model.

    Attributes:
        model_type: the family, as transformers names it.
        depth: number of layers of the base, adapted or not.
        sites: the target modules, in the order in which the model lists them.
    """

    model_type: str
    depth: int
    sites: tuple[Site, ...]

    def __post_init__(self) -> None:
        if not self.sites:
            raise UsageError("a layout needs at least one target module")
        if len({site.name for site in self.sites}) != len(self.sites):
            raise UsageError("a layout cannot name one module twice")
        for site in self.sites:
            if site.rank < 1:
                raise UsageError(f"rank {site.rank} of {site.name} is not at least 1")

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Sites of one (module type, in, out, kernel), in order of first appearance."""
        members: dict[str, list[int]] = {}
        for index, site in enumerate(self.sites):
            width = site.in_features * site.kernel
            members.setdefault(f"{site.module_type}_{width}x{site.out_features}", []).append(index)
        return tuple(self._group(key, indices) for key, indices in members.items())

    def _group(self, key: str, indices: Sequence[int]) -> Group:
        sites = tuple(self.sites[index] for index in indices)
        return Group(
            key=key,
            module_type=sites[0].module_type,
            in_features=sites[0].in_features * sites[0].kernel,
            out_features=sites[0].out_features,
            rank=max(site.rank for site in sites),
            sites=sites,
            indices=tuple(indices),
        )

    def position(self, name: str) -> tuple[Group, int]:
        """A site's group and its index there, by name. Raises LayoutMismatch if there is none."""
        if name not in self._positions:
            raise LayoutMismatch(f"the layout has no module named {name}")
        return self._positions[name]

    @cached_property
    def _positions(self) -> dict[str, tuple[Group, int]]:
        return {s.name: (group, i) for group in self.groups for i, s in enumerate(group.sites)}

    @cached_property
    def rank(self) -> int:
        """The largest rank of any site."""
        return max(site.rank for site in self.sites)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, windows left out: factors are the same without them."""
        sites = tuple(replace(site, window=()) for site in self.sites)
        return digest(canonical_json(replace(self, sites=sites).to_dict()))

    @property
    def ranks(self) -> dict[str, int]:
        """The rank of each site, by name."""
        return {site.name: site.rank for site in self.sites}

    @property
    def module_types(self) -> list[str]:
        """The types of the target modules, each once, in order."""
        return list(dict.fromkeys(site.module_type for site in self.sites))

    def with_ranks(self, ranks: Mapping[str, int]) -> "Layout":
        """The modules that `ranks` names, each at its rank."""
        sites = (replace(s, rank=ranks[s.name]) for s in self.sites if s.name in ranks)
        return replace(self, sites=tuple(sites))

    def with_rank(self, rank: int) -> "Layout":
        """The same modules, all at `rank`. Raises UsageError if that is below 1."""
        return self.with_ranks(dict.fromkeys(self.ranks, rank))

    def joined(self, other: "Layout") -> "Layout":
        """The modules of both, those that only `other` has at the end; ranks of shared ones add.

        Raises LayoutMismatch for layouts of different bases.
        """
        return self._union(other, operator.add)

    def covering(self, other: "Layout") -> "Layout":
        """The same, shared modules at the larger of their ranks. Raises LayoutMismatch."""
        return self._union(other, max)

    def _union(self, other: "Layout", combined: Callable[[int, int], int]) -> "Layout":
        families = {layout.model_type for layout in (self, other)} - {""}
        sites = {site.name: site for site in self.sites}
        for site in other.sites:
            mine = sites.get(site.name)
            if len(families) > 1 or (mine and replace(mine, rank=site.rank) != site):
                raise LayoutMismatch(
                    f"{site.name} cannot be in one layout of {self.describe()} and "
                    f"{other.describe()}"
                )
            rank = combined(mine.rank, site.rank) if mine else site.rank
            sites[site.name] = replace(site, rank=rank)
        return replace(self, sites=tuple(sites.values()))

    def to_dict(self) -> dict[str, Any]:
        rows = [
            [s.name, s.in_features, s.out_features, s.rank, s.kernel, s.transposed]
            + ([list(s.window)] if s.window else [])
            for s in self.sites
        ]
        return {"model_type": self.model_type, "depth": self.depth, "sites": rows}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Layout":
        sites = tuple(Site(*row[:6], window=tuple(*row[6:])) for row in data["sites"])
        return cls(model_type=data["model_type"], depth=data["depth"], sites=sites)

    def require_same(self, other: "Layout", name: str, other_name: str) -> None:
        """Raise LayoutMismatch, naming both sides and how they differ, unless equal."""
        if self.digest == other.digest:
            return
        raise LayoutMismatch(
            f"{name} has layout {self.digest[:12]} ({self.describe()}) and "
            f"{other_name} has layout {other.digest[:12]} ({other.describe()})"
            f"{self.difference(other)}"
        )

    def difference(self, other: "Layout") -> str:
        """The end of a sentence that names the first module that only one of two layouts has.

        Empty if they have the same ones.
        """
        names, others = ({site.name for site in layout.sites} for layout in (self, other))
        only = [("first", min(names - others))] if names - others else []
        only += [("second", min(others - names))] if others - names else []
        return "".join(f"; only the {which} has {name}" for which, name in only)

    def describe(self) -> str:
        """One phrase for people: family, number of modules, shapes, rank."""
        shapes = ", ".join(f"{g.module_type} {g.in_features}x{g.out_features}" for g in self.groups)
        family = f"{self.model_type}, " if self.model_type else ""
        return f"{family}{len(self.sites)} modules: {shapes}; rank {self.rank}"


def layout_of(config: Any, targets: Sequence[str] | None = None, *, rank: int = 8) -> Layout:
    """Read a layout from a transformers config, on the meta device.

    Args:
        config: the config of a decoder language model.
        targets: names of module types ("q_proj"); the family's default if None.
        rank: rank of every module.
    Raises:
        UnsupportedModel: the family, or a module's class, is not supported.
        UsageError: a target that the model does not have, or that may not be adapted.
    """
    family = getattr(config, "model_type", "")
    if family not in DEFAULT_TARGETS:
        supported = ", ".join(sorted(DEFAULT_TARGETS))
        raise UnsupportedModel(f"model family '{family}' is not supported; supported: {supported}")
    types = tuple(targets) if targets is not None else DEFAULT_TARGETS[family]
    refused = sorted(set(types) & set(REFUSED))
    if refused:
        raise UsageError(f"{refused[0]} cannot be adapted: servers refuse such adapters")
    sites = [replace(site, rank=rank) for site in _sites_of(_Config.of(config), types)]
    missing = [name for name in types if name not in {site.module_type for site in sites}]
    if missing:
        raise UsageError(f"model family '{family}' has no module named '{missing[0]}'")
    return Layout(model_type=family, depth=config.num_hidden_layers, sites=tuple(sites))


@dataclass(frozen=True)
class _Config:
    """A config that equals one of the same kind and content."""

    kind: type
    text: str
    config: Any = field(compare=False)

    @classmethod
    def of(cls, config: Any) -> "_Config":
        return cls(type(config), config.to_json_string(use_diff=False), config)


@lru_cache(maxsize=64)  # a model takes a tenth of a second, and every completion asks
def _sites_of(config: _Config, types: tuple[str, ...]) -> tuple[Site, ...]:
    """Every module whose last name is among `types`, at rank 1."""
    import torch
    from torch import nn
    from transformers import AutoModelForCausalLM
    from transformers.pytorch_utils import Conv1D

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config.config)
    sites = []
    for name, module in model.named_modules():
        if name.rsplit(".", 1)[-1] not in types:
            continue
        if isinstance(module, Conv1D):
            rows, columns = module.weight.shape
            sites.append(Site(name, rows, columns, 1, transposed=True))
        elif isinstance(module, nn.Linear):
            sites.append(Site(name, module.in_features, module.out_features, 1))
        else:
            raise UnsupportedModel(f"{name} is a {type(module).__name__}, not a linear layer")
    return tuple(sites)
