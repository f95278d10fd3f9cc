"""Generator checkpoints: a folder of config.json and model.safetensors, read strictly.

See library.checkpoint for how the tensors are stored.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from generator.layers.config import TextToLoRAConfig
from generator.models.text_to_lora import TextToLoRA
from library.checkpoint import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    CheckpointInfo,
    Storage,
    load_strictly,
    read_state,
    write_state,
)
from library.layout import Layout

__all__ = [
    "CONFIG_FILE",
    "WEIGHTS_FILE",
    "Checkpoint",
    "CheckpointInfo",
    "Storage",
    "from_pretrained",
    "save_pretrained",
]

FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """A loaded generator with its record and digest."""

    generator: str
    module: TextToLoRA
    info: CheckpointInfo
    digest: str

    @property
    def layout(self) -> Layout:
        return self.module.layout


def save_pretrained(
    folder: Path,
    module: TextToLoRA,
    info: CheckpointInfo,
    *,
    storage: Storage = "float32",
    overwrite: bool = False,
) -> None:
    """Write a checkpoint folder, whole or not at all. Raises OutputError, OutputExists."""
    config = {
        "format": FORMAT,
        "generator": "text-to-lora",
        "architecture": asdict(module.config),
        "layout": module.layout.to_dict(),
        "layout_digest": module.layout.digest,
        **asdict(info),
    }
    write_state(folder, config, module, storage=storage, overwrite=overwrite)


def from_pretrained(folder: Path) -> Checkpoint:
    """Read a checkpoint folder.

    Raises:
        MissingPath: no such folder.
        CheckpointError: damaged, of another program, or incomplete.
    """
    found = read_state(folder, _build)
    module, info = found.built
    load_strictly(folder, module, found.state)
    return Checkpoint(found.config["generator"], module.eval(), info, found.digest)


def _build(config: dict[str, Any]) -> tuple[TextToLoRA, CheckpointInfo]:
    if config["format"] != FORMAT or config["generator"] != "text-to-lora":
        raise ValueError(
            f"format {config['format']!r} of {config['generator']!r} is not known here"
        )
    layout = Layout.from_dict(config["layout"])
    if layout.digest != config["layout_digest"]:
        raise ValueError("its layout does not match its layout digest")
    module = TextToLoRA(TextToLoRAConfig(**config["architecture"]), layout)
    return module, CheckpointInfo.of(config)
