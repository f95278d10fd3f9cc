"""`lorasmith verify`: what can be said about any adapter before it is loaded."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

import lorasmith
from api.cli.console import progress_bar
from library.quiet import quiet_libraries
from lorasmith.verifying import Server


def verify_command(
    path: Annotated[Path, typer.Argument(help="An adapter's folder or one safetensors file.")],
    target: Annotated[
        Server | None,
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
    served: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Ask an OpenAI-compatible server whether this adapter answers."
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="The adapter's name on that server.")] = None,
    served_base: Annotated[
        str | None, typer.Option(help="Its base model's name there; default: as it lists them.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> int:
    """Check format, integrity, base and server; exit 1 if the adapter is refused.

    Example: lorasmith verify my-adapter --target vllm --hooks screening,neighbours

    A served one: lorasmith verify my-adapter --served http://127.0.0.1:8000 --model my-adapter
    """
    quiet_libraries()
    added = [] if hooks is None else [name.strip() for name in hooks.split(",")]
    with progress_bar("verifying", "%") as bar:
        report = lorasmith.verify(
            path,
            target=target,
            hooks=added,
            base=base,
            library=library,
            examples=examples,
            policy=policy,
            provenance=provenance,
            public_key=public_key,
            served=served,
            model=model,
            served_base=served_base,
            progress=lambda share: bar(int(100 * share), 100),
        )
    answer = {**report.to_dict(), "milliseconds": report.milliseconds}
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
