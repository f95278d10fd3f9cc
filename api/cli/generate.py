"""`lorasmith generate`: a description becomes an adapter folder."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from api.cli.common import check_device
from api.cli.console import quiet_libraries
from library.errors import UsageError
from library.files import data_dir, require_absent, require_kind, write_folder

if TYPE_CHECKING:
    from generator.engine import Engine
    from generator.package import Packaged
    from generator.request import Request
    from library.base.models import BaseReference


def generate_command(
    description: Annotated[str, typer.Argument(help="Description of the task.")],
    out: Annotated[Path, typer.Option(help="Folder for the adapter.")],
    generator: Annotated[
        str, typer.Option(help="One of `lorasmith generators`; auto chooses among them.")
    ] = "auto",
    base: Annotated[str | None, typer.Option(help="Hub id, hub:ID or folder.")] = None,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(help="A generator's checkpoint, in place of the shipped one; repeatable."),
    ] = None,
    library: Annotated[str | None, typer.Option(help="Default: the shipped sample.")] = None,
    examples: Annotated[
        Path | None, typer.Option(help="Examples of the task: JSONL of input and output.")
    ] = None,
    rank: Annotated[int | None, typer.Option(help="Default: the generator's.")] = None,
    strength: Annotated[float, typer.Option(help="Factor on the adapter's effect.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Recorded in the adapter's identity.")] = 0,
    profile: Annotated[str, typer.Option(help="portable or lossless.")] = "portable",
    attempts: Annotated[
        list[str] | None,
        typer.Option("--try", help="An input to answer with and without the adapter; repeatable."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing folder.")
    ] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Make a LoRA adapter from one sentence.

    Example: lorasmith generate "Say whether the review is positive or negative." --out my-adapter
    --try "The soup was cold and the waiter rude."
    """
    from generator.engine import require_strategy
    from generator.request import Request
    from library.peft.write import Profile
    from library.tasks.files import read_examples

    require_strategy(generator, examples=examples is not None)
    if profile not in get_args(Profile):
        raise UsageError(f"profile must be portable or lossless, not {profile!r}")
    pairs = () if examples is None else tuple(read_examples(examples))
    request = Request(description, rank, strength, seed, profile, pairs)  # type: ignore[arg-type]
    summary = produce(
        request,
        out,
        generator=generator,
        base=base,
        checkpoints=checkpoint or [],
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
    checkpoints: Sequence[Path] = (),
    library: str | None = None,
    attempts: Sequence[str] = (),
    overwrite: bool = False,
    device: str = "cpu",
) -> dict[str, Any]:
    """Make the adapter, ask the base, keep it, write the folder; return what `--json` prints."""
    from api.service.store import LOCAL, Store
    from generator.engine import open_engine, read_generator, shipped_library
    from library.base.models import resolve_base

    # 1. Everything that can be wrong with the command line alone.
    if any(not text.strip() for text in attempts):
        raise UsageError("--try needs some text")
    require_absent(out, overwrite)
    require_kind(out, folder=True)
    reference = resolve_base(base)
    check_device(device)
    quiet_libraries()
    # 2. The adapter, and the base's answers.
    loaded = [read_generator(folder) for folder in checkpoints]
    engine = open_engine(loaded, library or shipped_library(), device, required=generator)
    adapter = engine.generate(generator, request, reference)
    tries = _tries(adapter, engine, reference, attempts)
    # 3. Both places; quotas are the service's affair.
    files = adapter.files.files
    Store(data_dir(), quota_bytes=sys.maxsize).put(LOCAL, adapter.summary, files)
    write_folder(out, files, overwrite=overwrite)
    milliseconds = adapter.milliseconds
    return {**adapter.summary, "milliseconds": milliseconds, "out": str(out), "tries": tries}


def readable(summary: dict[str, Any]) -> str:
    """The summary for a person."""
    lines = [
        f"{summary['id']}  {summary['out']}",
        f"  {_source(summary)} for {summary['base_model']}, rank {summary['rank']}, "
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


def _tries(
    adapter: "Packaged", engine: "Engine", reference: "BaseReference", inputs: Sequence[str]
) -> list[dict[str, str]]:
    """The base's answers with and without the adapter, as it is stored."""
    if not inputs:
        return []
    import torch

    from library.base.decode import greedy
    from library.base.prompts import prompt_ids

    print("asking the base model ...", file=sys.stderr)
    base = engine.resources.model(reference)
    prompts = [prompt_ids(base.tokenizer, text) for text in inputs]
    stored = adapter.stored().to(base.device, torch.float32)
    plain = greedy(base, prompts)
    adapted = greedy(base, prompts, stored, [0] * len(prompts))
    return [
        {"input": text, "base": before, "adapted": after}
        for text, before, after in zip(inputs, plain, adapted, strict=True)
    ]


def _source(summary: dict[str, Any]) -> str:
    """The generator, and the strategy if it chose one."""
    name, strategy = summary["generator"], summary["chosen"]["strategy"]
    return name if name == strategy else f"{name}: {strategy}"


def _one_line(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 160 else flat[:159] + "…"
