"""An adapter as the GGUF file that llama.cpp loads beside its base (`--lora`).

Tensors go by the names of the base's, with `.lora_a` or `.lora_b` behind them. llama.cpp multiplies
B·A by one alpha for the whole file over each pair's rank, so every scale is folded into B and every
pair has one rank, which is alpha. For Llama and its kin llama.cpp stores the rows of q and k in
another order than Hugging Face: its rotary embedding turns neighbours, Hugging Face's the two
halves of a head. The rows of B follow; A stays. Names and orders were read in llama.cpp's
`conversion/` of autumn 2026.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from library.adapter import Adapter
from library.base.models import load_config, resolve_base
from library.errors import (
    BaseModelError,
    LayoutMismatch,
    UnsupportedModel,
    UsageError,
)
from library.layout import layout_of
from library.peft.config import parse_config
from library.peft.read import adapter_of, shape_of
from library.peft.write import CONFIG_FILE

# By transformers' name of a family, the gguf package's name of its architecture. Of other families
# llama.cpp cuts, joins or turns matrices in ways that are not tested here.
_REORDERED = {"granite": "GRANITE", "llama": "LLAMA", "mistral": "LLAMA", "smollm3": "SMOLLM3"}
_AS_THEY_ARE = {
    "cohere": "COMMAND_R",
    "gemma": "GEMMA",
    "gemma2": "GEMMA2",
    "gemma3_text": "GEMMA3",
    "olmo2": "OLMO2",
    "phi3": "PHI3",
    "qwen2": "QWEN2",
    "qwen3": "QWEN3",
}
ARCHITECTURES = {**_REORDERED, **_AS_THEY_ARE}


@dataclass(frozen=True)
class GgufLora:
    """The content of an adapter's GGUF file.

    Attributes:
        architecture: the base's, as GGUF files name it.
        rank: of every pair, and alpha.
        tensors: by name, A `(rank, in)` before its B `(out, rank)`, in float32.
    """

    architecture: str
    rank: int
    tensors: dict[str, Tensor]

    def write(self, path: Path) -> None:
        """Write the file; equal content gives equal bytes."""
        from gguf import GGUFType, GGUFWriter, Keys

        writer = GGUFWriter(path, self.architecture)
        writer.add_type(GGUFType.ADAPTER)
        writer.add_string(Keys.Adapter.TYPE, "lora")
        writer.add_float32(Keys.Adapter.LORA_ALPHA, float(self.rank))
        for name, tensor in self.tensors.items():
            writer.add_tensor(name, tensor.numpy())
        try:
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()


def gguf_lora(files: Mapping[str, bytes], base: str | None = None) -> GgufLora:
    """An adapter's files, by name, as the content of a GGUF file.

    Args:
        base: Hub id or folder of its base; None for the one that its config names, of which
            nothing is downloaded.
    Raises:
        UnknownName, MissingPath: `base` is no base model.
        AdapterFileError: damaged, or more than a plain LoRA.
        BaseModelError: the base's config is not at hand or cannot be read.
        UnsupportedModel: a family or module that llama.cpp does not take, or not as it is.
        LayoutMismatch: the adapter is not for this base.
    """
    adapter = adapter_of(files)
    if base is None:
        name, config = _named_base(files[CONFIG_FILE])
    else:
        reference = resolve_base(base)
        name, config = reference.name, load_config(reference)
    if config.model_type not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        message = f"no GGUF for adapters of the family '{config.model_type}'; supported: {known}"
        raise UnsupportedModel(message)
    _require_for(adapter, config, name)
    return _content(adapter.with_rank(adapter.layout.rank), config)


def _named_base(content: bytes) -> tuple[str, Any]:
    """Name and config of the base that a config names. Raises AdapterFileError, BaseModelError."""
    name = parse_config(Path(CONFIG_FILE), content).get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise BaseModelError("the adapter's config names no base model: name one with --base")
    try:
        return name, load_config(resolve_base(name), offline=True)
    except (UsageError, BaseModelError) as error:
        message = f"the adapter's base model '{name}' is not on this machine: name one with --base"
        raise BaseModelError(message) from error


def _require_for(adapter: Adapter, config: Any, base_name: str) -> None:
    """Raise LayoutMismatch unless the base has every module of the adapter, in its shape."""
    try:
        base = layout_of(config, adapter.layout.module_types)
    except UsageError as error:
        raise LayoutMismatch(f"the adapter is not for {base_name}: {error}") from error
    shapes = {shape_of(site) for site in base.sites}
    for site in adapter.layout.sites:
        if shape_of(site) not in shapes:
            raise LayoutMismatch(
                f"the adapter is not for {base_name}: that has no module {site.name} "
                f"from {site.in_features} to {site.out_features}"
            )


def _content(adapter: Adapter, config: Any) -> GgufLora:
    """Names and tensors of an adapter of one rank, for a base that has all its modules."""
    from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, get_tensor_name_map

    architecture = MODEL_ARCH[ARCHITECTURES[config.model_type]]
    names = get_tensor_name_map(architecture, config.num_hidden_layers)
    tensors: dict[str, Tensor] = {}
    for site in adapter.layout.sites:
        name = names.get_name(site.name)
        if name is None:
            raise UnsupportedModel(f"llama.cpp has no tensor for the module {site.name}")
        a, b = (factor[0] for factor in adapter.site(site))
        if config.model_type in _REORDERED:
            b = _reordered(b, _heads(config, site.module_type))
        tensors[f"{name}.weight.lora_a"] = a.contiguous()
        tensors[f"{name}.weight.lora_b"] = b.contiguous()
    return GgufLora(MODEL_ARCH_NAMES[architecture], adapter.layout.rank, tensors)


def _heads(config: Any, module_type: str) -> int | None:
    """The number of heads whose rows are reordered; None of other modules than q and k."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    return heads.get(module_type)


def _reordered(b: Float[Tensor, "out rank"], heads: int | None) -> Float[Tensor, "out rank"]:
    """B with the two halves of each head interleaved, as llama.cpp stores q and k."""
    if heads is None:
        return b
    rows, rank = b.shape
    halves = b.reshape(heads, 2, rows // heads // 2, rank)  # (heads, half, pair, rank)
    return halves.swapaxes(1, 2).reshape(rows, rank)
