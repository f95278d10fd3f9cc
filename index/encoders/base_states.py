"""The base model as the reader of descriptions: its own hidden states, token by token.

A description goes through the first layers of the base, in the chat frame in which a prompt would
hold it, with an adapter in place that was trained to read instructions there. What comes out is
what such a base makes of the description by attention. It is a condition for a generator, which
then has to carry it into weights but not to read; no library is searched by it.
"""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize
from torch.nn.utils.rnn import pad_sequence

from index.encoders.descriptions import Embeddings, join
from library.adapter import Adapter, zeros
from library.base.merged import merge_into
from library.base.models import (
    BaseReference,
    described,
    load_model,
    load_tokenizer,
    of_one_base,
)
from library.base.prompts import ids_before_user
from library.checkpoint import Checkpointed, load_checkpoint
from library.errors import LayoutMismatch, UsageError
from library.layout import Layout

MOST_TOKENS = 1024  # of a description; the rest is not read


@dataclass(frozen=True)
class BaseStatesConfig:
    """Which states are read.

    Attributes:
        layers: of the base that a description goes through.
        width: of its hidden states.
    """

    layers: int
    width: int

    def __post_init__(self) -> None:
        if not all(isinstance(v, int) and v > 0 for v in (self.layers, self.width)):
            raise UsageError("layers and width of base states must be whole numbers above 0")


class BaseStates(Checkpointed):
    """What base states are made with, beside the base: an adapter, and each dimension's scale.

    Args:
        config: which states.
        layout: the modules that the adapter changes, all below `config.layers`.
    Raises:
        UsageError: a module lies above.
    """

    kind = "base-states"
    Config = BaseStatesConfig
    layout: Layout

    def __init__(self, config: BaseStatesConfig, layout: Layout) -> None:
        super().__init__(config, layout)
        if any(site.depth >= config.layers for site in layout.sites):
            raise UsageError("the adapter of base states changes layers that are not read")
        nothing = zeros(layout)
        for key in nothing.A:
            self.register_buffer(f"A_{key}", nothing.A[key][0])
            self.register_buffer(f"B_{key}", nothing.B[key][0])
        self.register_buffer("mean", torch.zeros(config.width))
        self.register_buffer("scale", torch.ones(config.width))

    @property
    def adapter(self) -> Adapter:
        """The adapter under which the base reads (n = 1)."""
        keys = [group.key for group in self.layout.groups]
        a = {key: self.get_buffer(f"A_{key}")[None] for key in keys}
        return Adapter(self.layout, a, {key: self.get_buffer(f"B_{key}")[None] for key in keys})

    def read_with(self, adapter: Adapter) -> None:
        """Take over an adapter of the same layout. Raises LayoutMismatch."""
        adapter.layout.require_same(self.layout, "the adapter", "the base states")
        for key in adapter.A:
            self.get_buffer(f"A_{key}").copy_(adapter.A[key][0])
            self.get_buffer(f"B_{key}").copy_(adapter.B[key][0])

    def standardise(self, states: Float[Tensor, "tokens width"]) -> None:
        """Let each dimension have mean 0 and deviation 1 over these states, as they come now."""
        mean, scale = self.get_buffer("mean"), self.get_buffer("scale")
        # What comes now is already (x - mean)·scale.
        mean.add_((states.mean(0) / scale).to(mean))
        scale.div_(states.std(0).clamp_min(1e-6).to(scale))


class StateEncoder:
    """A base that reads descriptions, with the interface of DescriptionEncoder.

    Args:
        reading: what it reads with, for this base.
        base: the base model.
        name: as provenance shows it.
        dtype: float64 to serve, float32 to train.
        device: where it runs.
    Raises:
        BaseModelError: the base cannot be read.
        LayoutMismatch: it has fewer layers than are to be read.
    """

    def __init__(
        self,
        reading: BaseStates,
        base: BaseReference,
        name: str = BaseStates.kind,
        *,
        dtype: torch.dtype = torch.float64,
        device: str | torch.device = "cpu",
    ) -> None:
        self.name, self.reading = name, reading.to(device)
        self._device = torch.device(device)
        # 1. The layers that are read, and no others.
        model = load_model(base)
        decoder = model.get_decoder()
        if len(decoder.layers) < reading.config.layers:
            raise LayoutMismatch(
                f"base model '{base.name}' has {len(decoder.layers)} layers, not the "
                f"{reading.config.layers} that are to be read"
            )
        decoder.layers = decoder.layers[: reading.config.layers]
        decoder.config.num_hidden_layers = len(decoder.layers)
        self._model: Any = torch.nn.Module.to(model, device, dtype)
        # 2. The adapter in their weights: one product a module then, where hooks would do three.
        merge_into(self._model, self.reading.adapter)
        # 3. What stands before the user's message in a prompt; read once, at the first text.
        self._tokenizer = load_tokenizer(base)
        self._before = ids_before_user(self._tokenizer)
        self._read_before: Any = None  # keys and values of its tokens

    @property
    def dimension(self) -> int:
        """Length of a token's vector, and of the pooled one."""
        return self.reading.config.width

    def windows(self, description: str) -> list[str]:
        """The description, in one piece: a base reads more than the description encoder does."""
        return [description]

    def encode(self, descriptions: Sequence[str]) -> Embeddings:
        """Embed descriptions one by one: no other changes the last bits of a vector."""
        return join([row for text in descriptions for row in self.encode_batch([text])])

    @torch.inference_mode()
    def encode_batch(self, texts: Sequence[str], *, batch_size: int = 64) -> list[Embeddings]:
        """Embed many texts fast, for training: those of similar length together.

        Each becomes one row: `tokens` are the standardised states, `words` the base's input
        embeddings, `pooled` the mean state as a unit vector.
        """
        ids = [self._ids(text)[:MOST_TOKENS] for text in texts]
        longest_first = sorted(range(len(texts)), key=lambda i: -len(ids[i]))
        rows: dict[int, Embeddings] = {}
        for start in range(0, len(texts), batch_size):
            some = longest_first[start : start + batch_size]
            rows.update(zip(some, self._rows([ids[i] for i in some]), strict=True))
        return [rows[i] for i in range(len(texts))]

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer(text, add_special_tokens=False)["input_ids"]

    def _rows(self, texts: Sequence[Sequence[int]]) -> Iterator[Embeddings]:
        """Each text's row: a view of what is made for all of them, so that a GPU never waits."""
        before = self._before_user()
        if before is not None:
            before.batch_repeat_interleave(len(texts))
        # 1. All on one go to the device; padded on the right, where a causal model needs no mask.
        lengths = torch.tensor([len(ids) for ids in texts])
        padded = pad_sequence(
            [torch.tensor(ids, dtype=torch.long) for ids in texts], batch_first=True
        )
        mask = torch.arange(padded.shape[1]) < lengths[:, None]  # (b, t)
        padded, mask = (x.to(self._device, non_blocking=True) for x in (padded, mask))
        # 2. Standardised states, and the words as they come in.
        hidden = self._hidden(padded, before)  # (b, t, width)
        mean, scale = (self.reading.get_buffer(n).to(hidden) for n in ("mean", "scale"))
        states, words = (hidden - mean) * scale, self._model.get_input_embeddings()(padded)
        total = torch.where(mask[..., None], states, 0).sum(dim=1)
        pooled = normalize(total, dim=-1)  # the mean's direction
        for i, count in enumerate(map(len, texts)):
            row, own = slice(i, i + 1), slice(count)
            yield Embeddings(pooled[row], states[row, own], words[row, own], mask[row, own])

    def _before_user(self) -> Any:
        """A copy of the keys and values of what stands before the text; None for nothing."""
        from transformers import DynamicCache

        if self._read_before is None and self._before:
            cache = DynamicCache(config=self._model.get_decoder().config)
            self._hidden(torch.tensor([self._before], device=self._device), cache)
            self._read_before = cache
        return deepcopy(self._read_before)

    def _hidden(self, ids: Int[Tensor, "b t"], cache: Any) -> Float[Tensor, "b t width"]:
        """The base's states after the layers that are read, normalised as it does its last ones."""
        decoder = self._model.get_decoder()
        return decoder(
            input_ids=ids, past_key_values=cache, use_cache=cache is not None
        ).last_hidden_state


def states_name(folder: Path) -> str:
    """The name of a stored reader, by its digest. Raises MissingPath, CheckpointError."""
    return _name(load_checkpoint(folder, BaseStates).digest)


def _name(digest: str) -> str:
    return f"{BaseStates.kind}:{digest[:16]}"


def load_state_encoder(
    folder: Path, base: BaseReference, *, dtype: torch.dtype, device: str | torch.device
) -> StateEncoder:
    """The reader stored in a folder.

    Raises:
        MissingPath, CheckpointError: the folder cannot be read.
        LayoutMismatch: it is for another base.
        BaseModelError: the base cannot be read.
    """
    stored = load_checkpoint(folder, BaseStates)
    if not of_one_base(stored.info.base, described(base)):
        raise LayoutMismatch(
            f"{folder} reads descriptions by '{stored.info.base['id']}', not by '{base.name}'"
        )
    return StateEncoder(stored.module, base, _name(stored.digest), dtype=dtype, device=device)
