"""The architecture of Text-to-LoRA as numbers, as its checkpoints record it."""

from dataclasses import dataclass
from typing import Literal

from library.errors import UsageError

Size = Literal["S", "M", "L"]


@dataclass(frozen=True)
class TextToLoRAConfig:
    """The architecture.

    Attributes:
        embedding_dim: length of a description's vector.
        size: which head (paper, section 3.2).
        latent: width h of the descriptor and trunk.
        head_in: width of the trunk's output, which the heads read.
        queries: learned queries that attend to the description's tokens; 0 uses the pooled
            vector alone, as the paper does.
        words_dim: length of the encoder's input embeddings, if queries and reader shall read these
            beside the token vectors; 0 leaves them out.
        reader_dim: length of what the reader takes from a word (generator.layers.word_reader); 0
            for no reader.
        copy_dim: length of the queries by which each rank of o_proj and down_proj picks a word of
            the description to write (generator.layers.copy_reader); 0 for none. The words have to
            be the base's own.
        examples: largest number of input/output pairs that it is made to read, beside a description
            or without one (generator.layers.pair_encoder); 0 for none.
        dropout: in the trunk.
        b_gain: factor on the L head's B, which keeps the first steps small.
        phases: whether the adapter also depends on a phase (generator.phases).
        gate: whether half of the ranks are a static part, and what a condition adds to it in the
            other half passes a gate (generator.layers.gate).
    """

    embedding_dim: int = 384
    size: Size = "L"
    latent: int = 128
    head_in: int = 512
    queries: int = 0
    words_dim: int = 0
    reader_dim: int = 0
    copy_dim: int = 0
    examples: int = 0
    dropout: float = 0.05
    b_gain: float = 0.1
    phases: bool = False
    gate: bool = False

    def __post_init__(self) -> None:
        counts = {k: v for k, v in vars(self).items() if k not in ("size", "dropout", "b_gain")}
        for name, value in counts.items():
            if not isinstance(value, int) or value < 0:
                raise UsageError(f"{name} must be a whole number, not {value!r}")
        if self.size not in ("S", "M", "L"):
            raise UsageError(f"size must be S, M or L, not {self.size!r}")
        if self.latent % 4:
            raise UsageError(f"latent must be a multiple of 4, not {self.latent}")
        if self.words_dim and not (self.queries or self.reader_dim or self.copy_dim):
            raise UsageError("words_dim needs queries or a reader, which read the words")
        if self.reader_dim and not self.words_dim:
            raise UsageError("reader_dim needs words_dim, as the reader reads words")
        if self.copy_dim and not self.words_dim:
            raise UsageError("copy_dim needs words_dim, as words are what is copied")
        if self.examples and not (self.queries and self.words_dim):
            raise UsageError("examples need queries and words_dim, with which pairs are read")
