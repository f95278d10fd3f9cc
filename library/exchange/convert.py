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
from jaxtyping import Float
from torch import Tensor

from library.errors import AdapterFileError, first_line
from library.exchange.source import Source, peft_weights
from library.factored import Residual, best_of_rank
from library.peft.config import read_any_config, require_plain
from library.peft.lora_config import lora_config
from library.peft.patterns import require_bounded
from library.peft.write import CONFIG_FILE, PREFIX
from library.progress import Progress, no_progress

# The types that PEFT merges into the weights of linear layers, from the adapter's files alone.
CONVERTED = (
    "ADALORA", "BOFT", "C3A", "DELORA", "FOURIERFT", "GRALORA", "HIRA", "HRA", "IA3", "LOHA",
    "LOKR", "LORA", "MISS", "OFT", "RANDLORA", "ROAD", "TINYLORA", "UNILORA", "VBLORA", "VERA",
    "WAVEFT",
)  # fmt: skip


def require_convertible(path: Path, config: dict[str, Any]) -> str:
    """The type that a config names. Raises AdapterFileError if it is no change of weights alone."""
    kind = "DORA" if config.get("use_dora") else str(config.get("peft_type"))
    if config.get("peft_type") not in CONVERTED:
        raise AdapterFileError(f"{path}: {kind} is not a change of linear layers' weights")
    require_plain(path, {**config, "peft_type": "LORA", "use_dora": False})
    return kind


def convert(
    folder: Path, model: Any, base_name: str, *, rank: int, progress: Progress = no_progress
) -> Source:
    """Read an adapter of another PEFT type as a LoRA of `rank`, or of a module's size if smaller.

    Args:
        model: the base's, which is of no use afterwards.
        base_name: its name, as the config will say it.

    The note's `conversion` says how far it is from the original: the Frobenius norm of the
    difference of all ΔW, over that of the original's.

    Raises AdapterFileError: a type that cannot be converted, with the reason; damaged files.
    """
    config = read_any_config(folder / CONFIG_FILE)
    kind = require_convertible(folder / CONFIG_FILE, config)
    file = peft_weights(folder)
    require_bounded(config, [name for name, _ in model.named_modules()])
    adapted = _loaded(folder, model, set(file.tensors))
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    residual, kinds = Residual(), set[bool]()
    for name, delta, transposed in _deltas(adapted, progress):
        a, b = best_of_rank(delta, rank)
        residual.add(delta, a, b)
        tensors |= {f"{PREFIX}{name}.lora_A.weight": a, f"{PREFIX}{name}.lora_B.weight": b}
        ranks[name] = len(a)
        kinds.add(transposed)
    plain = lora_config(
        ranks, ranks, base_name=base_name, fan_in_fan_out=True in kinds, task_type="CAUSAL_LM"
    )
    conversion = {"from": kind, "rank": rank, "relative_error": residual.relative}
    note = {"file": file.name, "sha256": file.sha256, "conversion": conversion}
    return Source(kind.lower(), plain, None, tensors, note)


def _loaded(folder: Path, base: Any, keys: set[str]) -> Any:
    from peft import PeftModel, get_peft_model_state_dict

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what matters about the files is compared here
            model = PeftModel.from_pretrained(base, str(folder)).eval()
        missing = keys ^ set(get_peft_model_state_dict(model))
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
        change, transposed = _change(name, layer, base), isinstance(base, Conv1D)
        yield name, change.T if transposed else change, transposed
        progress(done, len(layers))


def _change(name: str, layer: Any, base: Any) -> Float[Tensor, "rows columns"]:
    """The change of a layer's weight by merging, in float64; the layer is of no use afterwards."""
    layer.double()
    weight = base.weight.detach().clone()
    bias = None if base.bias is None else base.bias.detach().clone()
    try:
        layer.merge()
    except (NotImplementedError, ValueError, RuntimeError) as error:
        raise AdapterFileError(f"PEFT cannot merge {name} into the base: {error}") from error
    if bias is not None and (bias != base.bias).any():
        raise AdapterFileError(f"{name}: the adapter changes a bias, which a LoRA cannot")
    change = base.weight.detach() - weight
    base.weight.data = base.weight.data[:0]  # float64 copies of a whole base would be too much
    return change
