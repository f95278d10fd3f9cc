"""The format hook: is this a LoRA adapter, whole, finite, and what its config says it is?"""

from pathlib import Path
from typing import Any

from library.errors import AdapterFileError
from library.exchange.image_lora import is_kohya, read_image_lora
from library.peft.config import by_pattern, check_targets, check_types
from library.peft.read import layout_in
from library.peft.safetensors_file import DTYPES, BadFile, Header, TensorFile, as_utf8
from library.peft.write import CONFIG_FILE, PREFIX
from verification.artifact import PICKLES, Artifact, Context
from verification.checks.magnitude import require_finite, require_strength
from verification.checks.patterns import require_bounded
from verification.hook import Finding, Severity

FORMAT_HOOK = "format"
MAX_TENSORS = 65_536
MAX_NAME = 1024


def check_format(subject: Artifact, context: Context) -> list[Finding]:
    """What is wrong with the files themselves. Raises BadFile for the first reason to refuse."""
    header, config = subject.header, subject.config
    _require_sane(header)
    top = require_finite(header, subject.files[subject.weights])
    found = [
        _finding("pickle-beside", "warn", f"{as_utf8(name)} is a pickle; no one should load it")
        for name in subject.names
        if name.endswith(PICKLES)
    ]
    if config is None:
        return [*found, _without_config(subject)]
    if config.get("peft_type") != "LORA":
        return [*found, _other_type(config)]
    try:
        check_types(Path(CONFIG_FILE), config)
    except (AdapterFileError, OverflowError, RecursionError) as error:
        raise BadFile("config", str(error)) from error
    modules = subject.pairs
    require_bounded(config, modules)
    _require_agreement(config, modules)
    require_strength(subject, top)
    return found


def _require_sane(header: Header) -> None:
    if not header.tensors:
        raise BadFile("pairs", "the file holds no tensors")
    if len(header.tensors) > MAX_TENSORS:
        raise BadFile("too-many", f"the file holds more than {MAX_TENSORS} tensors")
    for name, entry in header.tensors.items():
        if len(name) > MAX_NAME:
            raise BadFile("keys", f"a name has {len(name)} characters", limit=MAX_NAME)
        if entry.dtype not in DTYPES:
            raise BadFile("dtype", f"{name} has dtype {entry.dtype}, which is no factor's")
        if entry.start == entry.end:
            raise BadFile("empty-tensor", f"{name} has shape {list(entry.shape)}: no elements")


def _require_agreement(
    config: dict[str, Any], modules: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
) -> None:
    """File and config name the same modules, and the same rank for each."""
    try:
        check_targets(config, modules)
    except AdapterFileError as error:
        raise BadFile("targets", str(error)) from error
    default = config.get("r", 8)
    if type(default) is not int or default < 1:
        raise BadFile("rank", f"the config gives rank {default!s:.40}, which is no natural number")
    for name, (a, _) in modules.items():
        rank = by_pattern(config.get("rank_pattern") or {}, name, default)
        if type(rank) is not int or rank != a[0]:
            raise BadFile("rank", f"the config gives {name} rank {rank}, the file {a[0]}")


def _without_config(subject: Artifact) -> Finding:
    """What a file says that comes without a config: an image model's LoRA, or half an adapter."""
    if any(key.startswith(PREFIX) for key in subject.shapes):
        _ = subject.pairs
        if subject.folder:
            raise BadFile("no-config", f"there is no {CONFIG_FILE} beside the weights")
        return _finding(
            "no-config", "warn", f"a file without {CONFIG_FILE}: rank and alpha were not checked"
        )
    from safetensors.torch import load

    tensors = dict(sorted(load(subject.files[subject.weights]).items()))
    file = TensorFile(subject.weights, "", tensors, subject.header.metadata)
    try:
        config, pairs, _ = read_image_lora(file, "unknown")
        layout_in(config, pairs)
    except AdapterFileError as error:
        raise BadFile("keys", str(error)) from error
    kind = "kohya" if is_kohya(tensors) else "diffusers"
    return _finding(
        "image-lora",
        "warn",
        f"a LoRA file of an image model as {kind} writes it: language servers do not read it",
        format=kind,
    )


def _other_type(config: dict[str, Any]) -> Finding:
    kind = config.get("peft_type")
    if not isinstance(kind, str):
        raise BadFile("config", "the config has no peft_type, without which PEFT does not load it")
    message = f"a {kind[:40]} adapter, not LoRA: its tensors were not held to its config"
    return _finding("other-type", "warn", message, peft_type=kind[:40])


def _finding(code: str, severity: Severity, message: str, **evidence: Any) -> Finding:
    return Finding(FORMAT_HOOK, code, severity, message, evidence)
