"""`lorasmith verify`: what can be said about any adapter before it is loaded."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from library.errors import MissingPath


def verify(
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
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> int:
    """Check format, integrity, base and server; exit 1 if the adapter is refused.

    Example: lorasmith verify my-adapter --target vllm
    """
    for given in (path, policy, provenance, public_key):
        if given is not None and not given.exists() and not given.is_symlink():
            raise MissingPath(f"there is nothing at {given}")
    from api.console import quiet_libraries
    from library.base import resolve_base
    from verification.hooks import Policy, read_policy, require_key
    from verification.hooks import verify as check
    from verification.report import summary
    from verification.signing import read_public_key
    from verification.subject import Context

    quiet_libraries()
    reference = None if base is None else resolve_base(base)
    chosen = Policy() if policy is None else read_policy(policy)
    key = None if public_key is None else read_public_key(public_key)
    require_key(chosen, key)
    times: dict[str, float] = {}
    found = check(path, Context(target, reference, key), chosen, provenance, times)
    answer = {**summary(found), "milliseconds": times}
    typer.echo(json.dumps(answer, ensure_ascii=False) if as_json else _readable(path, answer))
    return int(answer["verdict"] == "refuse")


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
