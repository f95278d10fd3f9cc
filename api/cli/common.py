"""Checks that several commands share."""

import pretrained
from library.errors import UsageError

SHIPPED = str(pretrained.LIBRARY)


def check_device(device: str) -> None:
    """Raise UsageError unless `device` is cpu, or cuda and there is one."""
    if device == "cpu":
        return
    if device.split(":")[0] != "cuda":
        raise UsageError(f"device must be cpu or cuda, not {device!r}")
    import torch

    if not torch.cuda.is_available():
        raise UsageError("device cuda is not available: torch finds no CUDA device")
