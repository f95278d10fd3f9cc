"""Generators: a description becomes an adapter in one forward pass.

Lives here: the generators as plain modules, their checkpoints, and the one `generate`. Does not:
how they are trained (training), nor how requests arrive (api).
"""

from generator.checkpoint import Checkpoint, CheckpointInfo, from_pretrained, save_pretrained
from generator.config import TextToLoRAConfig
from generator.generate import GENERATORS, Generated, Generator, Request, shipped
from generator.text_to_lora import TextToLoRA

__all__ = [
    "GENERATORS",
    "Checkpoint",
    "CheckpointInfo",
    "Generated",
    "Generator",
    "Request",
    "TextToLoRA",
    "TextToLoRAConfig",
    "from_pretrained",
    "save_pretrained",
    "shipped",
]
