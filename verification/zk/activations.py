"""The verifier's own inputs: what its base model feeds into the committed modules."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from library.base.prompts import prompt_ids
from library.errors import LayoutMismatch, UsageError
from verification.zk.child import Rows
from verification.zk.integers import on_grid
from verification.zk.manifest import Committed


def activations(base: Any, modules: Iterable[Committed], text: str, rows: int) -> dict[str, Rows]:
    """Inputs of each module on the grid of 2⁻²⁴, at the last `rows` tokens of a prompt.

    Args:
        base: a loaded `library.base.models.BaseModel`, without any adapter.
        text: the user's turn.
    Raises:
        LayoutMismatch: the base lacks a module, or it has inputs of another width.
        UsageError: the prompt has fewer tokens than `rows`.
    """
    ids = prompt_ids(base.tokenizer, text)
    if not 1 <= rows <= len(ids):
        raise UsageError(f"rows must be from 1 to {len(ids)}, the tokens of the prompt")
    inputs: dict[str, Tensor] = {}
    named = dict(base.model.named_modules())
    committed = list(modules)
    for module in committed:
        if module.name not in named:
            raise LayoutMismatch(f"the base model has no module named {module.name}")
    handles = [
        named[module.name].register_forward_pre_hook(partial(_keep, inputs, module.name))
        for module in committed
    ]
    try:
        with torch.inference_mode():
            base.model(input_ids=torch.tensor([ids], device=base.device))
    finally:
        for handle in handles:
            handle.remove()
    for module in committed:
        width = inputs[module.name].shape[-1]
        if width != module.in_features:
            raise LayoutMismatch(
                f"{module.name} takes {width} numbers in the base model and "
                f"{module.in_features} in the manifest"
            )
    return {module.name: on_grid(inputs[module.name][0, -rows:].cpu()) for module in committed}


def _keep(inputs: dict[str, Tensor], name: str, module: Any, arguments: tuple[Tensor, ...]) -> None:
    inputs[name] = arguments[0].detach()
