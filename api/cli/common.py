"""Shared by several commands: checks, and the strategies behind `generate` and `evaluate`."""

from pathlib import Path
from typing import TYPE_CHECKING

import pretrained
from library.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from generator.strategies.strategies import Strategies

SHIPPED = str(Path(pretrained.__file__).parent / "library")


def check_device(device: str) -> None:
    """Raise UsageError unless `device` is cpu, or cuda and there is one."""
    import torch

    if device != "cpu" and device.split(":")[0] != "cuda":
        raise UsageError(f"device must be cpu or cuda, not {device!r}")
    if device != "cpu" and not torch.cuda.is_available():
        raise UsageError("device cuda is not available: torch finds no CUDA device")


def shipped_library() -> str | None:
    """The sample library, if this installation has it."""
    return SHIPPED if Path(SHIPPED).is_dir() else None


def open_strategies(
    checkpoint: Path | None, library: str | None, device: str, *, needed: bool
) -> "Strategies":
    """The strategies of a checkpoint (default: the shipped one) and of a library, if given.

    Args:
        needed: a missing checkpoint is an error; one that is named must be readable anyway.
    Raises:
        MissingPath, CheckpointError: the checkpoint cannot be used.
        MissingPath: there is no library.
    """
    from generator.generate import Generator
    from generator.strategies.strategies import Strategies
    from library.store.catalogue import open_library

    try:
        generator = Generator(checkpoint, device=device)
    except CheckpointError:
        if needed or checkpoint is not None:
            raise
        generator = None
    return Strategies(generator, open_library(library) if library else None, device=device)
