"""`lorasmith generate`: a description becomes an adapter folder."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.common import check_device, open_strategies, shipped_library
from api.cli.console import quiet_libraries
from library.errors import UsageError
from library.files import data_dir, require_absent, require_kind, write_folder

if TYPE_CHECKING:
    from generator.request import Generated, Request
    from generator.strategies.strategies import Strategies
    from library.base.models import BaseReference
    from library.tasks.files import Example


def generate_command(
    description: Annotated[str, typer.Argument(help="What the adapter shall make the base do.")],
    out: Annotated[Path, typer.Option(help="Folder for the adapter.")],
    generator: Annotated[
        str, typer.Option(help="auto, text-to-lora, nearest or compose.")
    ] = "auto",
    base: Annotated[str | None, typer.Option(help="Hub id, hub:ID or folder.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Default: the shipped one.")] = None,
    library: Annotated[str | None, typer.Option(help="Default: the shipped sample.")] = None,
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
    from generator.request import Request
    from generator.strategies.strategies import require_known

    require_known(generator, examples=examples is not None)
    given = tuple(_examples(examples)) if examples is not None else ()
    request = Request(description, rank, strength, seed, _profile(profile), given)
    summary = produce(
        request,
        out,
        generator=generator,
        base=base,
        checkpoint=checkpoint,
        library=library,
        attempts=attempts or [],
        overwrite=overwrite,
        device=device,
    )
    typer.echo(json.dumps(summary, ensure_ascii=False) if as_json else readable(summary))


def produce(
    request: "Request",
    out: Path,
    *,
    generator: str = "auto",
    base: str | None = None,
    checkpoint: Path | None = None,
    library: str | None = None,
    attempts: Sequence[str] = (),
    overwrite: bool = False,
    device: str = "cpu",
) -> dict[str, Any]:
    """Make the adapter, ask the base, keep it, write the folder; return what `--json` prints."""
    from api.service.store import LOCAL, Store
    from generator.generate import TEXT_TO_LORA
    from library.base.models import resolve_base
    from verification.run import reported

    if any(not text.strip() for text in attempts):
        raise UsageError("--try needs some text")
    require_absent(out, overwrite)
    require_kind(out, folder=True)
    reference = resolve_base(base)
    check_device(device)
    quiet_libraries()
    needed = generator == TEXT_TO_LORA
    strategies = open_strategies(checkpoint, library or shipped_library(), device, needed=needed)
    made = strategies.generate(generator, [request], reference)[0]
    checked = reported(made.files, reference)
    tries = _tries(made, strategies, reference, attempts)
    known = {**made.summary(), "report": checked.report}
    # The service serves it too; quotas are the service's affair.
    Store(data_dir(), quota_bytes=sys.maxsize).put(LOCAL, known, checked.files.files)
    write_folder(out, checked.files.files, overwrite=overwrite)
    return {**known, "milliseconds": checked.milliseconds, "out": str(out), "tries": tries}


def readable(summary: dict[str, Any]) -> str:
    """The summary for a person."""
    lines = [
        f"{summary['id']}  {summary['out']}",
        f"  {_made_by(summary)} for {summary['base_model']}, rank {summary['rank']}, "
        f"sha256 {summary['sha256'][:16]}…",
        f"  {summary['chosen']['reason']}",
        f"  verified: {summary['report']['verdict']}",
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
    made: "Generated", strategies: "Strategies", reference: "BaseReference", inputs: Sequence[str]
) -> list[dict[str, str]]:
    """The base's answers with and without the adapter, as it is stored."""
    if not inputs:
        return []
    import torch

    from library.base.decode import greedy
    from library.base.prompts import prompt_ids

    print("asking the base model ...", file=sys.stderr)
    base = strategies.base(reference)
    prompts = [prompt_ids(base.tokenizer, text) for text in inputs]
    stored = made.stored().to(base.device, torch.float32)
    plain = greedy(base, prompts)
    adapted = greedy(base, prompts, stored, [0] * len(prompts))
    return [
        {"input": text, "base": before, "adapted": after}
        for text, before, after in zip(inputs, plain, adapted, strict=True)
    ]


def _examples(path: Path) -> "list[Example]":
    """Lines of {"input", "output"}. Raises MissingPath, TaskFileError."""
    from library.tasks.files import read_examples

    return read_examples(path)


def _made_by(summary: dict[str, Any]) -> str:
    """The generator, and the strategy if it chose one."""
    name, strategy = summary["generator"], summary["chosen"]["strategy"]
    return name if name == strategy else f"{name}: {strategy}"


def _one_line(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 160 else flat[:159] + "…"
