"""`lorasmith verify`: what can be said about any adapter before it is loaded."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from library.errors import UsageError
from library.files import require_present

if TYPE_CHECKING:
    from library.base.models import BaseReference
    from verification.run import Hook, Policy


def verify_command(
    path: Annotated[Path, typer.Argument(help="An adapter's folder or one safetensors file.")],
    target: Annotated[
        Literal["peft", "vllm", "sglang", "llama.cpp", "ollama"] | None,
        typer.Option(help="The server that is to load it."),
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(help="JSON: which hooks, which severities refuse.")
    ] = None,
    provenance: Annotated[
        Path | None, typer.Option(help="A trusted provenance.json, in place of the folder's.")
    ] = None,
    public_key: Annotated[
        Path | None, typer.Option(help="PEM of the ed25519 key that has to have signed it.")
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="Base model; default: what the config says, if at hand.")
    ] = None,
    hooks: Annotated[
        str | None,
        typer.Option(help="Slow hooks to add: screening,neighbours,agreement,behaviour."),
    ] = None,
    library: Annotated[
        str | None, typer.Option(help="For neighbours and behaviour; default: the shipped sample.")
    ] = None,
    examples: Annotated[
        Path | None, typer.Option(help="JSONL of input and output, for behaviour.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> int:
    """Check format, integrity, base and server; exit 1 if the adapter is refused.

    Example: lorasmith verify my-adapter --target vllm --hooks screening,neighbours
    """
    require_present(path, policy, provenance, public_key, examples)
    from api.cli.console import progress_bar, quiet_libraries
    from library.base.models import resolve_base
    from library.tasks.files import read_examples
    from verification.artifact import Context
    from verification.checks.signing import read_public_key
    from verification.run import HOOKS, require_key, verify_path

    quiet_libraries()
    reference = None if base is None else resolve_base(base)
    selected = _policy(policy, hooks)
    key = None if public_key is None else read_public_key(public_key)
    require_key(selected, key)
    _require_use(selected, library, examples)
    rows = [] if examples is None else read_examples(examples)
    available = (*HOOKS, *_slow(reference, library))
    with progress_bar("verifying", "%") as bar:
        context = Context(target, reference, key, rows, lambda share: bar(int(100 * share), 100))
        report = verify_path(path, context, selected, provenance, available)
    answer = {**report.to_dict(), "milliseconds": report.milliseconds}
    typer.echo(json.dumps(answer, ensure_ascii=False) if as_json else _readable(path, answer))
    return int(answer["verdict"] == "refuse")


def _policy(path: Path | None, hooks: str | None) -> "Policy":
    """The policy of a file, or the default one, with hooks added. Raises UsageError."""
    from verification.run import Policy, read_policy, require_known_hooks
    from verification.scores.sources import SLOW

    available = (*Policy.hooks, *SLOW)
    selected = Policy() if path is None else read_policy(path, available)
    added = [] if hooks is None else [name.strip() for name in hooks.split(",")]
    require_known_hooks(added, available)
    return replace(selected, hooks=tuple(dict.fromkeys((*selected.hooks, *added))))


def _require_use(policy: "Policy", library: str | None, examples: Path | None) -> None:
    """Raise UsageError for options that no hook uses, or a library that is not there."""
    from api.cli.common import SHIPPED
    from library.store.open import open_library

    if ("behaviour" in policy.hooks) != (examples is not None):
        raise UsageError("the hook behaviour and --examples go together")
    if {"neighbours", "behaviour"} & set(policy.hooks):
        open_library(library or SHIPPED)
    elif library is not None:
        raise UsageError("--library is for the hooks neighbours and behaviour, which do not run")


def _slow(reference: "BaseReference | None", library: str | None) -> "tuple[Hook, ...]":
    from api.cli.common import SHIPPED
    from index.encoders.descriptions import DescriptionEncoder
    from library.base.models import DEFAULT_BASE, load_base, resolve_base
    from verification.scores.sources import SlowHooks

    def at_hand(name: str | None) -> "BaseReference | None":
        return reference or (resolve_base() if name == DEFAULT_BASE else None)

    return SlowHooks(library or SHIPPED, DescriptionEncoder, at_hand, load_base).hooks()


def _readable(path: Path, answer: dict[str, Any]) -> str:
    took = sum(answer["milliseconds"].values())
    lines = [f"{answer['verdict']}  {path}  {took:.1f} ms"]
    lines += [
        f"  {f['severity']:6}  {f['hook']}/{f['code']}: {f['message']}" for f in answer["findings"]
    ]
    return "\n".join(map(_printable, lines))


def _printable(text: str) -> str:
    """Names in a hostile file can hold what a terminal would obey."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text)
