"""Adapters of other PEFT types, as the LoRA that comes nearest to what they do to the weights.

PEFT merges an adapter into its base; what that changes in a weight is the type's true ΔW, and its
truncated SVD the nearest LoRA of a rank (Eckart and Young). PEFT's own `convert_to_lora` (0.21)
factors `get_delta_weight` instead, which for DoRA leaves the magnitude out, and takes no type that
multiplies the base's weights, such as OFT.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from library.errors import AdapterFileError, first_line
from library.exchange.source import Source, peft_weights
from library.factored import Residual, best_of_rank
from library.peft.config import read_any_config, require_plain
from library.peft.keys import parted
from library.peft.lora_config import lora_config
from library.peft.merging import MERGEABLE, change_by_merging
from library.peft.patterns import require_bounded
from library.peft.readers import EXTRAS
from library.peft.write import CONFIG_FILE, PREFIX
from library.progress import Progress, no_progress

_CLASSES = {  # of transformers, by PEFT's task type
    "FEATURE_EXTRACTION": "AutoModel",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
}


def class_of_base(config: dict[str, Any]) -> str:
    """The name of the class in transformers whose modules a config names; else a causal LM's."""
    import transformers

    mapping = config.get("auto_mapping")
    named = str(mapping.get("base_model_class")) if isinstance(mapping, dict) else ""
    kind = getattr(transformers, named, None)
    if isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel):
        return named
    return _CLASSES.get(str(config.get("task_type")), "AutoModelForCausalLM")


def require_convertible(path: Path, config: dict[str, Any]) -> str:
    """The type that a config names. Raises AdapterFileError if it is no change of weights alone."""
    kind = "DORA" if config.get("use_dora") else str(config.get("peft_type"))
    if config.get("peft_type") not in MERGEABLE:
        raise AdapterFileError(f"{path}: {kind} is not a change of linear layers' weights")
    require_plain(path, {**config, "peft_type": "LORA", "use_dora": False})
    return kind


def convert(
    folder: Path, model: Any, base_name: str, *, rank: int, progress: Progress = no_progress
) -> Source:
    """Read an adapter of another PEFT type as a LoRA of `rank`, or of a module's size if smaller.

    What was trained beside it stays as it is.

    Args:
        model: the base's, of the class of `class_of_base`; of no use afterwards.
        base_name: its name, as the config will say it.

    The note's `conversion` says how far it is from the original: the Frobenius norm of the
    difference of all ΔW, over that of the original's.

    Raises AdapterFileError: a type that cannot be converted, with the reason; damaged files.
    """
    config = read_any_config(folder / CONFIG_FILE)
    kind = require_convertible(folder / CONFIG_FILE, config)
    file = peft_weights(folder)
    require_bounded(config, [name for name, _ in model.named_modules()])
    own, tensors = parted(file.tensors, config)
    adapted = _loaded(folder, model, own)
    ranks: dict[str, int] = {}
    residual, kinds = Residual(), set[bool]()
    for name, delta, transposed in _deltas(adapted, progress):
        a, b = best_of_rank(delta, rank)
        residual.add(delta, a, b)
        tensors |= {f"{PREFIX}{name}.lora_A.weight": a, f"{PREFIX}{name}.lora_B.weight": b}
        ranks[name] = len(a)
        kinds.add(transposed)
    plain = lora_config(ranks, ranks, base_name=base_name, fan_in_fan_out=True in kinds)
    plain |= {key: config[key] for key in ("task_type", *EXTRAS) if config.get(key)}
    if plain["bias"] not in ("none", "all"):
        plain["bias"] = "lora_only"  # of "boft_only", too
    conversion = {"from": kind, "rank": rank, "relative_error": residual.relative}
    note = {"file": file.name, "sha256": file.sha256, "conversion": conversion}
    return Source(kind.lower(), plain, None, tensors, note)


def _loaded(folder: Path, base: Any, tensors: dict[str, Tensor]) -> Any:
    import peft

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what matters about the files is compared here
            config: Any = peft.PeftConfig.from_pretrained(str(folder))
            # What stands beside changes no ΔW, and a head may have another size than the base's.
            config.task_type = config.modules_to_save = config.trainable_token_indices = None
            config.bias = "none"
            model = peft.get_peft_model(base, config).eval()
            missing = tensors.keys() ^ peft.get_peft_model_state_dict(model).keys()
            if not missing:
                peft.set_peft_model_state_dict(model, tensors)
    except Exception as error:  # each type has checks of its own
        reason = first_line(error)
        raise AdapterFileError(f"PEFT cannot load {folder} on the base: {reason}") from error
    if missing:
        raise AdapterFileError(f"{folder}: {min(missing)} is not in both, the file and the base")
    return model


def _deltas(model: Any, progress: Progress) -> Iterator[tuple[str, Tensor, bool]]:
    """Name, ΔW `[out, in]` in float64, and whether the base stores it as (in, out)."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from transformers.pytorch_utils import Conv1D

    layers = [
        (name, module)
        for name, module in model.base_model.model.named_modules()
        if isinstance(module, BaseTunerLayer)
    ]
    for done, (name, layer) in enumerate(layers, 1):
        base: Any = layer.get_base_layer()
        if not isinstance(base, torch.nn.Linear | Conv1D):
            raise AdapterFileError(f"{name} is a {type(base).__name__}, not a linear layer")
        change, transposed = change_by_merging(name, layer), isinstance(base, Conv1D)
        base.weight.data = base.weight.data[:0]  # float64 copies of a whole base are too much
        yield name, change.T if transposed else change, transposed
        progress(done, len(layers))
