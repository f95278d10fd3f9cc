"""The weight encoder: adapters and descriptions in one space, to search adapters by weights.

The idea of a common space for weights and texts is AutoLoRA's (for image adapters); here it is
learnt for language models. An adapter becomes a unit vector through features that depend on ΔW
alone (index.encoders.weight_features), a description through the frozen description encoder; both
are then mapped linearly. Any ranks; modules that an adapter lacks count as zero, and those that the
encoder does not know not at all.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

import pretrained
from index.encoders.weight_features import features, gram, inputs_of, readings, width_of_features
from library.adapter import Adapter
from library.checkpoint import Checkpointed, CheckpointInfo, load_checkpoint
from library.errors import UsageError
from library.layout import Layout


@dataclass(frozen=True)
class WeightEncoderConfig:
    """Sizes.

    Attributes:
        embedding: length of a description's vector.
        directions: of each input, onto which ΔWᵀΔW is projected.
        dimension: of the common space.
    """

    embedding: int = 384
    directions: int = 28
    dimension: int = 64

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not isinstance(value, int) or value < 1:
                raise UsageError(f"{name} of a weight encoder must be a whole number above 0")


class WeightEncoder(Checkpointed):
    """Adapters of one base, of any rank, to unit vectors; descriptions into the same space.

    Args:
        config: sizes.
        layout: the modules of the base that adapters may change; its ranks do not matter.
    Raises:
        UsageError: more directions than an input has.
    """

    kind = "weight-encoder"
    Config = WeightEncoderConfig
    layout: Layout

    def __init__(self, config: WeightEncoderConfig, layout: Layout) -> None:
        super().__init__(config, layout)
        self.info, self.digest = CheckpointInfo(), ""  # of the checkpoint it came from
        self.inputs = inputs_of(layout)
        q, width = config.directions, min(item.width for item in self.inputs)
        if q > width:
            raise UsageError(f"{q} directions do not fit an input of {width} numbers")
        self.bases = nn.ParameterList(
            nn.Parameter(torch.zeros(q, item.width), requires_grad=False) for item in self.inputs
        )
        entries = width_of_features(q)
        self.register_buffer("mean", torch.zeros(len(self.inputs), entries))
        self.register_buffer("centre", torch.zeros(config.embedding))
        self.project = nn.Linear(len(self.inputs) * entries, config.dimension, bias=False)
        self.text = nn.Linear(config.embedding, config.dimension, bias=False)

    @torch.inference_mode()
    def encode(self, adapter: Adapter) -> Float[Tensor, "n d"]:
        """n adapters to unit vectors; the zero vector for one that changes nothing.

        Raises LayoutMismatch for one that has no module that the encoder knows.
        """
        return self.embed(*self.features(adapter))

    @torch.inference_mode()
    def describe(self, embeddings: Float[Tensor, "m e"]) -> Float[Tensor, "m d"]:
        """m descriptions, as the description encoder pooled them, to unit vectors."""
        return self.embed_text(embeddings.to(self.text.weight))

    def is_for(self, base: str) -> bool:
        """True if adapters of a base of this name, or of a copy under another owner, may be read.

        An unnamed base counts as the encoder's; other modules are refused in any case.
        """
        return base_key(base) in ("", base_key(self.info.base["id"]))

    def features(
        self, adapter: Adapter
    ) -> tuple[Float[Tensor, "n inputs f"], Bool[Tensor, "n inputs"]]:
        """The values that `embed` takes, and the inputs for which there are any."""
        reads = readings(adapter, self.inputs)
        grams = [gram(item, basis) for item, basis in zip(reads, self.bases, strict=True)]
        present = torch.stack([item.present for item in reads], dim=1)  # (n, inputs)
        # (n, inputs, q, q) to (n, inputs, f), f = q·(q + 1) / 2
        return features(torch.stack(grams, dim=1)).to(self.project.weight), present

    def embed(
        self, values: Float[Tensor, "n inputs f"], present: Bool[Tensor, "n inputs"]
    ) -> Float[Tensor, "n d"]:
        """Features to unit vectors; with gradients in the projection."""
        centred = (values - self.get_buffer("mean")) * present[..., None]
        # (n, inputs, f) to (n, inputs·f) to (n, d)
        return nn.functional.normalize(self.project(centred.flatten(1)), dim=-1)

    def embed_text(self, embeddings: Float[Tensor, "m e"]) -> Float[Tensor, "m d"]:
        """Pooled descriptions to unit vectors, with gradients."""
        return nn.functional.normalize(self.text(embeddings - self.get_buffer("centre")), dim=-1)


def base_key(base: str) -> str:
    """What the names of a base and of copies of it have in common."""
    return base.rstrip("/").split("/")[-1].lower()


def load_weight_encoder(folder: Path | None = None) -> WeightEncoder:
    """Read a checkpoint folder, the shipped one by default; in float64, as it serves.

    Raises:
        MissingPath: no such folder.
        CheckpointError: damaged, of another program, or incomplete.
    """
    checkpoint = load_checkpoint(folder or pretrained.folder(WeightEncoder.kind), WeightEncoder)
    encoder = checkpoint.module.double().requires_grad_(False)
    encoder.info, encoder.digest = checkpoint.info, checkpoint.digest
    return encoder
