"""vLLM's own checker of configs and reader of weights, without a GPU; needs vLLM."""

from typing import Any
from unittest.mock import patch

# Modules of a Llama that vLLM adapts.
LINEAR = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def load(folder: str, max_rank: int = 16) -> Any:
    """An adapter's folder as vLLM's workers load it. Raises what vLLM raises."""
    from vllm.config.lora import LoRAConfig
    from vllm.lora import lora_model
    from vllm.lora.peft_helper import PEFTHelper

    helper = PEFTHelper.from_local_dir(folder, None)
    helper.validate_legal(LoRAConfig(max_lora_rank=max_rank))  # type: ignore[arg-type]
    with patch.object(lora_model, "PIN_MEMORY", False):  # it is pinned for a GPU
        return lora_model.LoRAModel.from_local_checkpoint(folder, LINEAR, helper, device="cpu")
