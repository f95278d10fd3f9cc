"""Noise on what a generator reads, while it trains: a description is then no key to look up."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from generator.models.base import Condition
from index.encoders.descriptions import Embeddings
from library.errors import UsageError


@dataclass(frozen=True)
class ConditionNoise:
    """Gaussian noise on embedded descriptions, and words that are left out.

    Attributes:
        scale: length of the noise on a vector, in expectation of its square, as a share of the
            vector's own; pooled vectors are of length 1 again afterwards. 0 for none.
        word_dropout: probability that a token is left out; a description keeps all of them rather
            than none. 0 for none.
    Raises:
        UsageError: a negative scale, or a probability outside [0, 1).
    """

    scale: float = 0.0
    word_dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.scale < 0 or not 0 <= self.word_dropout < 1:
            raise UsageError(
                "condition_noise.scale must not be negative, and word_dropout from 0 up to 1: "
                f"{self.scale:g} and {self.word_dropout:g}"
            )

    def __call__(self, condition: Condition) -> Condition:
        """The condition with noise drawn anew; with neither kind, itself."""
        if condition.text is None or not (self.scale or self.word_dropout):
            return condition
        text = condition.text
        if self.scale:
            text = self._blurred(text)
        if self.word_dropout:
            text = self._thinned(text)
        return replace(condition, text=text)

    def _blurred(self, text: Embeddings) -> Embeddings:
        return replace(
            text,
            pooled=normalize(self._moved(text.pooled), dim=-1),
            tokens=self._moved(text.tokens),
            words=self._moved(text.words),
        )

    def _moved(self, vectors: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        size = vectors.square().mean(dim=-1, keepdim=True).sqrt()  # of an entry
        return vectors + self.scale * size * torch.randn_like(vectors)

    def _thinned(self, text: Embeddings) -> Embeddings:
        drawn = torch.rand(text.mask.shape, device=text.mask.device)
        kept = text.mask & (drawn >= self.word_dropout)
        some = kept.any(dim=1, keepdim=True)  # (n, 1)
        return replace(text, mask=torch.where(some, kept, text.mask))
