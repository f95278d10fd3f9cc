"""adapter_config.json for factors whose file says rank and scale of each module."""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from library.peft.config import PLAIN_LORA


def lora_config(
    ranks: Mapping[str, int],
    alphas: Mapping[str, int | float],
    *,
    base_name: str,
    use_rslora: bool = False,
    fan_in_fan_out: bool = False,
    task_type: str | None = None,
) -> dict[str, Any]:
    """The config of a plain LoRA with a rank and an alpha for each module, both kept as they are.

    Args:
        ranks: by module path; the most common one becomes `r`, the others patterns.
        alphas: likewise.
    """
    rank, rank_pattern = _patterns(ranks)
    alpha, alpha_pattern = _patterns(alphas)
    return {
        **PLAIN_LORA,
        "alpha_pattern": alpha_pattern,
        "base_model_name_or_path": base_name,
        "fan_in_fan_out": fan_in_fan_out,
        "lora_alpha": alpha,
        "r": rank,
        "rank_pattern": rank_pattern,
        "target_modules": sorted(ranks),
        "task_type": task_type,
        "use_rslora": use_rslora,
    }


def _patterns(
    values: Mapping[str, int | float],
) -> tuple[int | float, dict[str, int | float]]:
    """The most common value, and one expression for the modules of each other value."""
    usual = Counter(values[name] for name in sorted(values)).most_common(1)[0][0]
    others: dict[int | float, list[str]] = {}
    for name in sorted(values):
        if values[name] != usual:
            others.setdefault(values[name], []).append(re.escape(name))
    return usual, {f"^(?:{'|'.join(names)})": value for value, names in others.items()}
