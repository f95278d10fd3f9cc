"""`lorasmith generate`: a description becomes an adapter folder."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from library.errors import UnknownName, UsageError
from library.files import data_dir, require_absent, require_kind, write_folder

if TYPE_CHECKING:
    from generator.generate import Generated, Request
    from library.base import BaseReference


def generate(
    description: Annotated[str, typer.Argument(help="What the adapter shall make the base do.")],
    out: Annotated[Path, typer.Option(help="Folder for the adapter.")],
    generator: Annotated[str, typer.Option(help="Which generator.")] = "text-to-lora",
    base: Annotated[str | None, typer.Option(help="Hub id, hub:ID or folder.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Default: the shipped one.")] = None,
    examples: Annotated[Path | None, typer.Option(help="JSONL of input and output.")] = None,
    rank: Annotated[int | None, typer.Option(help="Default: the generator's.")] = None,
    strength: Annotated[float, typer.Option(help="Factor on the adapter's effect.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Recorded in the adapter's identity.")] = 0,
    profile: Annotated[str, typer.Option(help="portable or lossless.")] = "portable",
    attempts: Annotated[
        list[str] | None, typer.Option("--try", help="Answer this with and without it.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the folder.")] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Make a LoRA adapter from one sentence.

    Example: lorasmith generate "Say whether the review is positive or negative." --out my-adapter
    --try "The soup was cold and the waiter rude."
    """
    from generator.generate import GENERATORS, Request

    if generator not in GENERATORS:
        raise UnknownName(f"unknown generator '{generator}'; known: {', '.join(GENERATORS)}")
    if examples is not None:
        raise UsageError(f"{generator} cannot use --examples: it reads the description alone")
    request = Request(description, rank, strength, seed, _profile(profile))
    summary = produce(
        request,
        out,
        base=base,
        checkpoint=checkpoint,
        attempts=attempts or [],
        overwrite=overwrite,
        device=device,
    )
    typer.echo(json.dumps(summary, ensure_ascii=False) if as_json else readable(summary))


def produce(
    request: "Request",
    out: Path,
    *,
    base: str | None = None,
    checkpoint: Path | None = None,
    attempts: Sequence[str] = (),
    overwrite: bool = False,
    device: str = "cpu",
) -> dict[str, Any]:
    """Make the adapter, ask the base, keep it, write the folder; return what `--json` prints."""
    from api.commands.common import check_device
    from api.console import quiet_libraries
    from api.store import LOCAL, Store
    from generator.generate import Generator
    from library.base import resolve_base

    if any(not text.strip() for text in attempts):
        raise UsageError("--try needs some text")
    require_absent(out, overwrite)
    require_kind(out, folder=True)
    reference = resolve_base(base)
    check_device(device)
    quiet_libraries()
    made = Generator(checkpoint, device=device).generate([request], reference)[0]
    tries = _tries(made, reference, attempts, device)
    # The service serves it too; quotas are the service's affair.
    Store(data_dir(), quota_bytes=sys.maxsize).put(LOCAL, made.summary(), made.files.files)
    write_folder(out, made.files.files, overwrite=overwrite)
    return {**made.summary(), "out": str(out), "tries": tries}


def readable(summary: dict[str, Any]) -> str:
    """The summary for a person."""
    lines = [
        f"{summary['id']}  {summary['out']}",
        f"  {summary['generator']} for {summary['base_model']}, rank {summary['rank']}, "
        f"sha256 {summary['sha256'][:16]}…",
    ]
    for attempt in summary["tries"]:
        lines += [
            "",
            f"  input    {_one_line(attempt['input'])}",
            f"  base     {_one_line(attempt['base'])}",
            f"  adapted  {_one_line(attempt['adapted'])}",
        ]
    return "\n".join(lines)


def _profile(text: str) -> Any:
    if text not in ("portable", "lossless"):
        raise UsageError(f"profile must be portable or lossless, not {text!r}")
    return text


def _tries(
    made: "Generated", reference: "BaseReference", inputs: Sequence[str], device: str
) -> list[dict[str, str]]:
    """The base's answers with and without the adapter, as it is stored."""
    if not inputs:
        return []
    import torch

    from library.base import load_base
    from library.decode import greedy
    from library.prompts import prompt_ids

    print("asking the base model ...", file=sys.stderr)
    base = load_base(reference, device=device)
    prompts = [prompt_ids(base.tokenizer, text) for text in inputs]
    stored = made.stored().to(device, torch.float32)
    plain = greedy(base, prompts)
    adapted = greedy(base, prompts, stored, [0] * len(prompts))
    return [
        {"input": text, "base": before, "adapted": after}
        for text, before, after in zip(inputs, plain, adapted, strict=True)
    ]


def _one_line(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 160 else flat[:159] + "…"
