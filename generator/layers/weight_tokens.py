"""Weight matrices as tokens: patches of 64 × 64 through one linear map (LoFA, arXiv 2512.08785)."""

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad

from library.base.weights import group_weights
from library.layout import Group

PATCH = 64
Tokens = Float[Tensor, "sites rows columns d"]
_State = tuple[object, ...]


def patches_along(features: int) -> int:
    """Patches that a side of a matrix takes, the last one filled up with zeros."""
    return -(-features // PATCH)


def patched(w: Float[Tensor, "sites out in"]) -> Float[Tensor, "sites rows columns pixels"]:
    """Matrices cut into patches, each laid flat row by row."""
    rows, columns = (patches_along(side) for side in w.shape[1:])
    padded = pad(w, (0, columns * PATCH - w.shape[2], 0, rows * PATCH - w.shape[1]))
    tiles = padded.unflatten(2, (columns, PATCH)).unflatten(1, (rows, PATCH))
    return tiles.transpose(2, 3).flatten(3)  # from (sites, rows, 64, columns, 64)


class WeightTokens(nn.Module):
    """W over its root mean square, patch by patch, to vectors of length `width`.

    A base's weights are the same for every request, so their tokens are kept for as long as the
    base is loaded and the map does not change; they are made anew where the map is being trained.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Linear(PATCH * PATCH, width)
        self.norm = nn.RMSNorm(width)
        self._kept: WeakKeyDictionary[nn.Module, dict[str, tuple[_State, Tensor]]]
        self._kept = WeakKeyDictionary()

    def forward(self, w: Float[Tensor, "sites out in"]) -> Tokens:
        size = w.square().mean(dim=(1, 2), keepdim=True).sqrt().clamp_min(1e-12)
        return self.norm(self.embed(patched(w / size)))

    def of(self, base: nn.Module, group: Group, positions: Sequence[int] | None = None) -> Tokens:
        """The tokens of a group's modules, or of those at `positions`.

        Raises as `library.base.weights.group_weights` does.
        """
        if torch.is_grad_enabled() and self.embed.weight.requires_grad:
            self._kept.clear()  # a step may follow, and fused optimisers raise no version
            return self._made(base, group, positions)
        if positions is not None:
            return self._made(base, group, positions)
        kept, state = self._kept.setdefault(base, {}), self._state()
        found = kept.get(group.key)
        if found is None or found[0] != state:  # another thread may replace it meanwhile
            found = kept[group.key] = (state, self._made(base, group, None))
        return found[1]

    def _made(self, base: nn.Module, group: Group, positions: Sequence[int] | None) -> Tokens:
        """Module by module, as a copy of all the weights would be as large as the base."""
        where = range(len(group.sites)) if positions is None else positions
        like = self.embed.weight
        return torch.cat([self(group_weights(base, group, [i]).to(like)) for i in where])

    def _state(self) -> _State:
        """What tokens depend on beside the base; in-place changes raise a tensor's version."""
        tensors = [(p.data_ptr(), p._version, p.dtype) for p in self.parameters()]
        return (*tensors, torch.is_inference_mode_enabled())
