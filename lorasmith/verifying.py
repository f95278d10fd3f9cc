"""Verification of any adapter, wherever it comes from."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from library.errors import UsageError
from lorasmith.libraries import SHIPPED_LIBRARY

if TYPE_CHECKING:
    from library.base.models import BaseReference
    from verification.run import Hook, Policy, VerificationReport

Server = Literal["peft", "vllm", "sglang", "llama.cpp", "ollama"]


def verify(
    path: Path | str,
    *,
    target: Server | None = None,
    hooks: Sequence[str] = (),
    base: str | None = None,
    library: str | None = None,
    examples: Path | None = None,
    policy: Path | None = None,
    provenance: Path | None = None,
    public_key: Path | None = None,
    served: str | None = None,
    model: str | None = None,
    served_base: str | None = None,
    progress: Callable[[float], None] | None = None,
) -> "VerificationReport":
    """A report on an adapter: its `verdict` (accept, warn or refuse) and its `findings`.

    Args:
        path: an adapter's folder or one safetensors file. A pickle is never opened.
        target: the server that is to load it.
        hooks: slow ones to add: screening, neighbours, agreement, behaviour.
        base: the base model; by default what the config names, if that is at hand.
        library: for neighbours and behaviour; the shipped sample by default.
        examples: JSONL of input and output, for behaviour.
        policy: JSON file: which hooks run and which severities refuse.
        provenance: a trusted provenance.json, in place of the folder's.
        public_key: PEM of the ed25519 key that must have signed it.
        served: URL of an OpenAI-compatible server, which is asked whether it answers by this
            adapter; its API key, if it wants one, is in LORASMITH_SERVED_KEY.
        model: the adapter's name there.
        served_base: its base model's name there, if the server's list of models does not tell.
        progress: called with the share that is done, 0 to 1.
    Raises:
        UsageError and its kinds, InputFileError, BaseModelError, TaskFileError.
    """
    from library.base.models import resolve_base
    from library.files import require_present
    from library.tasks.files import read_examples
    from verification.artifact import Context
    from verification.checks.signing import read_public_key
    from verification.run import HOOKS, require_key, verify_path

    # 1. Everything that can be wrong with the arguments alone.
    path = Path(path)
    require_present(path, policy, provenance, public_key, examples)
    reference = None if base is None else resolve_base(base)
    rules = _policy(policy, hooks)
    key = None if public_key is None else read_public_key(public_key)
    require_key(rules, key)
    _require_use(rules, library, examples)
    added = _served_hooks(served, model, served_base, reference)
    # 2. The hooks.
    rows = [] if examples is None else read_examples(examples)
    available = (*HOOKS, *_slow_hooks(reference, library), *added)
    rules = replace(rules, hooks=(*rules.hooks, *(hook.name for hook in added)))
    context = Context(target, reference, key, rows, progress or (lambda _: None))
    return verify_path(path, context, rules, provenance, available)


def _policy(path: Path | None, hooks: Sequence[str]) -> "Policy":
    """The policy of a file, or the default one, with hooks added. Raises UsageError."""
    from verification.run import Policy, read_policy, require_known_hooks
    from verification.scores.sources import SLOW

    available = (*Policy.hooks, *SLOW)
    rules = Policy() if path is None else read_policy(path, available)
    require_known_hooks(hooks, available)
    return replace(rules, hooks=tuple(dict.fromkeys((*rules.hooks, *hooks))))


def _require_use(policy: "Policy", library: str | None, examples: Path | None) -> None:
    """Raise UsageError for arguments that no hook uses, or a library that is not there."""
    from library.store.open import open_library

    if ("behaviour" in policy.hooks) != (examples is not None):
        raise UsageError("the hook behaviour and --examples go together")
    if {"neighbours", "behaviour"} & set(policy.hooks):
        open_library(library or SHIPPED_LIBRARY)
    elif library is not None:
        raise UsageError("--library is for the hooks neighbours and behaviour, which do not run")


def _served_hooks(
    url: str | None, model: str | None, base: str | None, reference: "BaseReference | None"
) -> "tuple[Hook, ...]":
    """The hook that asks a server, if one is given. Raises UsageError."""
    if (url is None) != (model is None) or (base is not None and url is None):
        raise UsageError("--served and --model go together, and --served-base with them")
    if url is None or model is None:
        return ()
    from library.base.models import load_base
    from verification.scores.served import served_hook
    from verification.scores.served_server import KEY_VARIABLE, Served

    served = Served(url, model, base, os.environ.get(KEY_VARIABLE, "").strip())
    return (served_hook(served, _at_hand(reference), load_base),)


def _at_hand(reference: "BaseReference | None") -> "Callable[[str | None], BaseReference | None]":
    """The base of a name in a config: the one that was given, else the default by its own name."""
    from library.base.models import DEFAULT_BASE, resolve_base

    return lambda name: reference or (resolve_base() if name == DEFAULT_BASE else None)


def _slow_hooks(reference: "BaseReference | None", library: str | None) -> "tuple[Hook, ...]":
    from index.encoders.descriptions import DescriptionEncoder
    from library.base.models import load_base
    from verification.scores.sources import SlowHooks

    location = library or SHIPPED_LIBRARY
    return SlowHooks(location, DescriptionEncoder, _at_hand(reference), load_base).hooks()
