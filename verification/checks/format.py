"""The format hook: is this a LoRA adapter, whole, finite, and what its config says it is?"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from library.errors import AdapterFileError
from library.exchange.image_lora import OtherKind, kind_of, read_image_lora
from library.peft.config import check_targets, check_types, require_rank, unused_targets
from library.peft.folder import PICKLES
from library.peft.keys import Shape, parted, wrapper_in
from library.peft.read import layout_in
from library.peft.safetensors_file import DTYPES, BadFile, Header, TensorFile, as_utf8
from library.peft.write import CONFIG_FILE, PREFIX
from verification.artifact import Artifact, Context
from verification.checks.magnitude import require_finite, require_strength
from verification.hook import Finding, Severity

FORMAT_HOOK = "format"
WRAPPED_NAMES = "wrapped-names"
MAX_TENSORS = 65_536
MAX_NAME = 1024


def check_format(artifact: Artifact, context: Context) -> list[Finding]:
    """Findings about the files themselves. Raises BadFile for the first reason to refuse."""
    header, config = artifact.header, artifact.config
    _require_sane(header)
    top = require_finite(header, artifact.files[artifact.weights])
    findings = [
        _finding("pickle-beside", "warn", f"{as_utf8(name)} is a pickle: do not load it")
        for name in artifact.names
        if name.endswith(PICKLES)
    ]
    if config is None:
        return [*findings, _without_config(artifact)]
    if config.get("peft_type") != "LORA":
        return [*findings, _other_type(config)]
    try:
        check_types(Path(CONFIG_FILE), config)
    except (AdapterFileError, OverflowError, RecursionError) as error:
        raise BadFile("config", str(error)) from error
    modules = artifact.pairs
    findings += _agreement(config, modules)
    findings += _extras([key.removeprefix(PREFIX) for key in parted(artifact.shapes, config)[1]])
    require_strength(artifact, top)
    wrapper = wrapper_in(artifact.shapes)
    if wrapper is not None:
        message = (
            f"names hold {wrapper}, which a wrapper of the model put there: PEFT finds no such "
            "module and applies nothing, without an error; library import removes it"
        )
        findings.append(_finding(WRAPPED_NAMES, "refuse", message, wrapper=wrapper))
    return findings


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


def _agreement(config: dict[str, Any], modules: Mapping[str, tuple[Shape, Shape]]) -> list[Finding]:
    """Hold the file to its config: the config targets its modules, at the ranks that they have."""
    try:
        check_targets(config, modules)
    except BadFile:
        raise
    except AdapterFileError as error:
        raise BadFile("targets", str(error)) from error
    for name, (a, _) in modules.items():
        try:
            require_rank(config, name, a[0])
        except AdapterFileError as error:
            raise BadFile("rank", str(error)) from error
    unused = unused_targets(config, modules)
    if not unused:
        return []
    message = f"the config also targets {unused[0]}, which the file does not hold: harmless"
    return [_finding("targets-unused", "info", message, targets=unused)]


def _extras(names: list[str]) -> list[Finding]:
    if not names:
        return []
    message = f"trained weights beside the LoRA, {names[0]} among them: no check of ΔW sees them"
    return [_finding("extras", "info", message, tensors=names)]


def _without_config(artifact: Artifact) -> Finding:
    """The finding on a file without a config: an image model's LoRA, or half an adapter."""
    if any(key.startswith(PREFIX) for key in artifact.shapes):
        _ = artifact.pairs
        if artifact.folder:
            raise BadFile("no-config", f"there is no {CONFIG_FILE} beside the weights")
        return _finding(
            "no-config", "warn", f"a file without {CONFIG_FILE}: rank and alpha were not checked"
        )
    from safetensors.torch import load

    tensors = dict(sorted(load(artifact.files[artifact.weights]).items()))
    file = TensorFile(artifact.weights, "", tensors, artifact.header.metadata)
    try:
        config, pairs, _ = read_image_lora(file, "unknown")
        layout_in(config, pairs)
    except OtherKind as error:
        raise BadFile("other-kind", str(error)) from error
    except AdapterFileError as error:
        raise BadFile("keys", str(error)) from error
    kind = kind_of(tensors)
    return _finding(
        "image-lora",
        "warn",
        f"an image model's LoRA file as {kind} writes it: language-model servers cannot load it",
        format=kind,
    )


def _other_type(config: dict[str, Any]) -> Finding:
    kind = config.get("peft_type")
    if not isinstance(kind, str):
        raise BadFile("config", "the config has no peft_type, without which PEFT does not load it")
    message = f"a {kind[:40]} adapter, not LoRA: its tensors were not compared with its config"
    return _finding("other-type", "warn", message, peft_type=kind[:40])


def _finding(code: str, severity: Severity, message: str, **evidence: Any) -> Finding:
    return Finding(FORMAT_HOOK, code, severity, message, evidence)
