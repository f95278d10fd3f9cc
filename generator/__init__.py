"""Generators: a description becomes an adapter.

Lives here: the generators as plain modules, their checkpoints, the strategies that generate, look
up or compose, and the one `generate`. Does not: how they are trained (training), nor how requests
arrive (api).
"""

from generator.checkpoint import Checkpoint, CheckpointInfo, from_pretrained, save_pretrained
from generator.config import TextToLoRAConfig
from generator.generate import Generator, shipped
from generator.request import Example, Generated, Request
from generator.strategies import GENERATORS, Strategies
from generator.text_to_lora import TextToLoRA

__all__ = [
    "GENERATORS",
    "Checkpoint",
    "CheckpointInfo",
    "Example",
    "Generated",
    "Generator",
    "Request",
    "Strategies",
    "TextToLoRA",
    "TextToLoRAConfig",
    "from_pretrained",
    "save_pretrained",
    "shipped",
]
