"""Adapters and everything they are made for and from: the lowest layer.

Lives here: layouts, the adapter type, PEFT folders, base models, tasks and prompts, the
multi-adapter forward, greedy decoding, metrics, provenance. Does not: encoders of descriptions,
generators, training, HTTP. Nothing in here imports another package of this repository.

Names are imported when they are first used, so that a wrong flag is answered before torch is there.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from library.adapter import Adapter, stack, zeros
    from library.base import (
        DEFAULT_BASE,
        BaseModel,
        BaseReference,
        load_base,
        load_config,
        resolve_base,
    )
    from library.decode import greedy
    from library.errors import LorasmithError
    from library.forward import MultiAdapter, adapted, lora_delta
    from library.layout import Group, Layout, Site, layout_of
    from library.metrics import bootstrap_ci95, exact_match, rouge_l
    from library.peft_io import to_peft
    from library.peft_read import read_peft
    from library.tasks import Instance, Task, read_task, read_tasks

_HOME = {
    "adapter": ("Adapter", "stack", "zeros"),
    "base": (
        "DEFAULT_BASE",
        "BaseModel",
        "BaseReference",
        "load_base",
        "load_config",
        "resolve_base",
    ),
    "decode": ("greedy",),
    "errors": ("LorasmithError",),
    "forward": ("MultiAdapter", "adapted", "lora_delta"),
    "layout": ("Group", "Layout", "Site", "layout_of"),
    "metrics": ("bootstrap_ci95", "exact_match", "rouge_l"),
    "peft_io": ("to_peft",),
    "peft_read": ("read_peft",),
    "tasks": ("Instance", "Task", "read_task", "read_tasks"),
}

__all__ = [
    "DEFAULT_BASE",
    "Adapter",
    "BaseModel",
    "BaseReference",
    "Group",
    "Instance",
    "Layout",
    "LorasmithError",
    "MultiAdapter",
    "Site",
    "Task",
    "adapted",
    "bootstrap_ci95",
    "exact_match",
    "greedy",
    "layout_of",
    "load_base",
    "load_config",
    "lora_delta",
    "read_peft",
    "read_task",
    "read_tasks",
    "resolve_base",
    "rouge_l",
    "stack",
    "to_peft",
    "zeros",
]


def __getattr__(name: str) -> Any:
    for module, names in _HOME.items():
        if name in names:
            return getattr(import_module(f"library.{module}"), name)
    raise AttributeError(f"module 'library' has no attribute {name!r}")
