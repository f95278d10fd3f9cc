"""Shipped checkpoints and the sample library, one folder each. Data only, and where it lies."""

from pathlib import Path


def folder(name: str) -> Path:
    """The folder of a shipped checkpoint or library; it may be absent from an installation."""
    return Path(__file__).parent / name


LIBRARY = folder("library")  # the sample
