"""Checks that several commands make."""

from library.errors import UsageError


def check_device(device: str) -> None:
    """Raise UsageError unless `device` is cpu, or cuda and there is one."""
    import torch

    if device != "cpu" and device.split(":")[0] != "cuda":
        raise UsageError(f"device must be cpu or cuda, not {device!r}")
    if device != "cpu" and not torch.cuda.is_available():
        raise UsageError("device cuda was asked for, but torch finds no CUDA device")
