"""The architecture of LoFA as numbers, as the checkpoints of its two stages record it."""

from dataclasses import dataclass

from library.errors import UsageError


@dataclass(frozen=True)
class TrunkConfig:
    """The trunk, which both stages have.

    Attributes:
        embedding_dim: length of the description encoder's token vectors.
        words_dim: length of its input embeddings, which are read beside them.
        width: of a token's state.
        blocks: number of blocks.
        heads: of each attention.
        widening: hidden width of an MLP over `width`.
    """

    embedding_dim: int = 384
    words_dim: int = 384
    width: int = 120
    blocks: int = 4
    heads: int = 5
    widening: int = 2

    def __post_init__(self) -> None:
        for name in TrunkConfig.__dataclass_fields__:
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise UsageError(f"{name} must be a whole number above 0, not {value!r}")
        if self.width % self.heads:
            raise UsageError(f"width {self.width} does not divide into {self.heads} heads")

    def require_same_trunk(self, other: "TrunkConfig") -> None:
        """Raise UsageError, naming the first difference, unless both trunks have one shape."""
        for name in TrunkConfig.__dataclass_fields__:
            mine, others = getattr(self, name), getattr(other, name)
            if mine != others:
                raise UsageError(f"stage II has {name} {mine} and stage I has {others}")


@dataclass(frozen=True)
class ResponseMapsConfig(TrunkConfig):
    """Stage I.

    Attributes:
        map_rank: of the maps' logits, before what the weights themselves add.
        weight_term: whether logits have a term in log|W|.
    """

    map_rank: int = 16
    weight_term: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.map_rank, int) or self.map_rank < 1:
            raise UsageError(f"map_rank must be a whole number above 0, not {self.map_rank!r}")


@dataclass(frozen=True)
class LoFAConfig(TrunkConfig):
    """Stage II.

    Attributes:
        features: whether it holds stage I's trunk, frozen, and reads what that made of the weights.
        scale: factor on what the heads add to A and to B, before it is trained.
    """

    features: bool = True
    scale: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.scale < 10:
            raise UsageError(f"scale must be from 0 to 10 and not zero, not {self.scale!r}")
