"""Signatures: an adapter's effect on the base's hidden states on fixed prompts, the slow reference.

Delta Activations (arXiv 2509.04442): the mean shift of the last token's final hidden state over
five generic prompts, here of our own wording. It needs the base model and one forward pass per
prompt and adapter; the weight encoder needs neither.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from library.adapter import Adapter
from library.base.models import BaseModel
from library.base.multi_adapter import MultiAdapter
from library.base.prompts import prompt_ids

PROMPTS = (
    "Here is a piece of work to do. Read it carefully and give the answer.",
    "Please carry out what is asked for and reply with the result alone.",
    "Look at the text that follows and respond in the way that fits it best.",
    "You are given an input. Produce the output that belongs to it.",
    "Solve the problem below and write down the solution.",
)


@torch.inference_mode()
def signatures(
    base: BaseModel, adapter: Adapter, *, batch_size: int = 32
) -> Float[Tensor, "n hidden"]:
    """The signature of each of n adapters, in float32 on the CPU.

    Raises LayoutMismatch if the base lacks a module that they change.
    """
    prompts = [prompt_ids(base.tokenizer, text) for text in PROMPTS]
    plain = [_last_state(base, prompt, 1) for prompt in prompts]
    adapter = adapter.to(base.device)
    hooks = MultiAdapter(base.model, adapter.layout)
    by_prompt = []
    try:
        for start in range(0, len(adapter), batch_size):
            rows = torch.arange(start, min(start + batch_size, len(adapter)), device=base.device)
            hooks.set(adapter, rows)
            shifts = [
                _last_state(base, prompt, len(rows)) - state
                for prompt, state in zip(prompts, plain, strict=True)
            ]
            by_prompt.append(torch.stack(shifts).mean(dim=0))
    finally:
        hooks.close()
    return torch.cat(by_prompt).cpu()


def _last_state(base: BaseModel, prompt: list[int], copies: int) -> Float[Tensor, "b hidden"]:
    ids = torch.tensor([prompt] * copies, device=base.device)
    output = base.model(input_ids=ids, output_hidden_states=True, logits_to_keep=1)
    return output.hidden_states[-1][:, -1].float()
