"""What reads descriptions: the description encoder, or the base itself."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from index.encoders.base_states import BaseStates, load_state_encoder, states_name
from index.encoders.descriptions import DescriptionEncoder, Embeddings
from library.base.models import BaseReference
from library.checkpoint import CHECKPOINT_CONFIG, CHECKPOINT_WEIGHTS
from library.errors import CheckpointError

FOLDER = "encoder"  # of a checkpoint, for base states


@runtime_checkable  # for the checks of types in tests
class TextEncoder(Protocol):
    """What makes conditions of texts; DescriptionEncoder and StateEncoder do."""

    name: str

    def windows(self, description: str) -> list[str]:
        """The pieces in which a description is embedded."""
        ...

    def encode(self, descriptions: Sequence[str]) -> Embeddings:
        """Embed texts one by one, to serve."""
        ...

    def encode_batch(self, texts: Sequence[str]) -> list[Embeddings]:
        """Embed many texts fast, one row each."""
        ...


def is_base_states(encoder: str) -> bool:
    """Whether an encoder's name is the folder of a reader by the base's states."""
    try:
        config = json.loads((Path(encoder) / CHECKPOINT_CONFIG).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("kind") == BaseStates.kind


def recorded_encoder(encoder: str) -> str:
    """An encoder's name as a checkpoint records it: of a folder of base states, its digest.

    Raises MissingPath, CheckpointError for a folder of base states that cannot be read.
    """
    return states_name(Path(encoder)) if is_base_states(encoder) else encoder


def encoder_files(encoder: str) -> dict[str, bytes]:
    """The files that a checkpoint holds of its encoder, by relative path: base states alone."""
    if not is_base_states(encoder):
        return {}
    names = (CHECKPOINT_CONFIG, CHECKPOINT_WEIGHTS)
    return {f"{FOLDER}/{name}": (Path(encoder) / name).read_bytes() for name in names}


def stored_encoder(checkpoint: Path, recorded: str) -> str:
    """The encoder of a checkpoint folder, by what its record says: a name, or a folder within.

    Raises CheckpointError if the base states that it names are not there.
    """
    if not recorded.startswith(f"{BaseStates.kind}:"):
        return recorded
    folder = checkpoint / FOLDER
    if not is_base_states(str(folder)) or states_name(folder) != recorded:
        raise CheckpointError(f"checkpoint {checkpoint} lacks its encoder, {recorded}")
    return str(folder)


def text_encoder(
    name: str,
    base: BaseReference,
    *,
    dtype: torch.dtype = torch.float64,
    device: str | torch.device = "cpu",
) -> TextEncoder:
    """An encoder by its name: a sentence-transformers model, or a folder of base states.

    Args:
        name: Hub id or folder.
        base: the base model of what is generated, which alone can read by its states.
        dtype: float64 to serve, float32 to train.
        device: where it runs.
    Raises:
        MissingPath, BaseModelError, CheckpointError, LayoutMismatch: it cannot be used.
    """
    if is_base_states(name):
        return load_state_encoder(Path(name), base, dtype=dtype, device=device)
    return DescriptionEncoder(name, dtype=dtype, device=device)
