"""Rows of one batch and what the model has kept of their tokens: rows may come and go.

Tokens stand at the right; shorter rows are padded on the left, where the mask hides them.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad


class CachedRows:
    """The keys and values of rows, which grow with every forward pass.

    Attributes:
        mask: `(rows, width)`, one for a token, zero for padding.
    """

    mask: Int[Tensor, "_rows _width"]

    def __init__(self, model: Any) -> None:
        self._model = model
        self._cache: Any = None

    def forward(
        self, ids: Int[Tensor, "rows new"], mask: Int[Tensor, "rows new"] | None = None
    ) -> Float[Tensor, "rows vocabulary"]:
        """Logits after the last of the rows' next tokens, none of which is padding without a mask.

        The first tokens say how many rows there are.
        """
        new = torch.ones_like(ids) if mask is None else mask
        self.mask = new if self._cache is None else torch.cat([self.mask, new], dim=-1)
        position = self.mask.cumsum(-1)[:, -ids.shape[1] :] - 1
        out = self._model(
            input_ids=ids,
            attention_mask=self.mask,
            position_ids=position.clamp_min(0),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self._cache = out.past_key_values
        return out.logits[:, -1]

    def keep(self, rows: Int[Tensor, " kept"]) -> None:
        """Drop all other rows; the padding stays."""
        self._cache.batch_select_indices(rows)
        self.mask = self.mask[rows]

    def trim(self) -> None:
        """Drop what is padding in every row."""
        self._resize(int(self.mask.sum(-1).amax()))

    @property
    def growing(self) -> bool:
        """Whether rows can be added: not where the model keeps more than keys and values."""
        return all(type(layer) in _kinds() for layer in self._cache.layers)

    def add(self, other: "CachedRows") -> None:
        """Take over the rows of another batch of the same model, after the present ones."""
        width = max(self.mask.shape[1], other.mask.shape[1])
        for rows in (self, other):
            rows._resize(width)
        self.mask = torch.cat([self.mask, other.mask])
        for layer, more in zip(self._cache.layers, other._cache.layers, strict=True):
            if layer.is_initialized:
                layer.keys = torch.cat([layer.keys, more.keys])
                layer.values = torch.cat([layer.values, more.values])

    def _resize(self, width: int) -> None:
        """Pad, or cut padding off, at the left."""
        if width == self.mask.shape[1]:
            return
        self.mask = pad(self.mask, (width - self.mask.shape[1], 0))
        for layer in self._cache.layers:
            held = width
            if layer.is_sliding:  # it holds the last ones alone, and counts all
                held, layer.cumulative_length = min(width, layer.sliding_window - 1), width
            if layer.is_initialized:  # some share those of another layer
                more = held - layer.keys.shape[-2]
                layer.keys = pad(layer.keys, (0, 0, more, 0))
                layer.values = pad(layer.values, (0, 0, more, 0))


def _kinds() -> Sequence[type]:
    """What can be padded at the left: layers that keep keys and values by position."""
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    return DynamicLayer, DynamicSlidingWindowLayer
