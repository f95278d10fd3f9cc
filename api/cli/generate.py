"""`lorasmith generate`: a description becomes an adapter folder."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

import lorasmith
from api.cli.console import progress_bar
from api.cli.training_lines import training_lines
from generator.refine.limits import DEFAULT_BUDGET
from library.base.prompts import INPUT
from library.errors import UsageError
from library.files import require_absent, require_kind, write_folder
from library.quiet import quiet_libraries
from lorasmith.loading import Mode, Profile


def generate_command(
    out: Annotated[Path, typer.Option(help="Folder for the adapter.")],
    description: Annotated[
        str | None, typer.Argument(help="Description of the task; may be left out with examples.")
    ] = None,
    generator: Annotated[
        str, typer.Option(help="One of `lorasmith generators`; auto chooses among them.")
    ] = "auto",
    base: Annotated[str | None, typer.Option(help="Hub id, hub:ID or folder.")] = None,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(help="A generator's checkpoint, in place of the shipped one; repeatable."),
    ] = None,
    multi_task: Annotated[
        Path | None,
        typer.Option(help="A multi-task adapter's folder, in place of the shipped ones."),
    ] = None,
    library: Annotated[str | None, typer.Option(help="Default: the shipped sample.")] = None,
    examples: Annotated[
        Path | None,
        typer.Option(help="JSONL of input and output, to read and train on; - is standard input."),
    ] = None,
    inputs: Annotated[
        Path | None,
        typer.Option(help="Inputs without answers, JSONL or one a line, to train on; or -."),
    ] = None,
    write_inputs: Annotated[
        int,
        typer.Option(help="Inputs to write from the description and train on, say 64."),
    ] = 0,
    refine: Annotated[
        int | None,
        typer.Option(help="Steps of training on what is given; 0: none.", show_default="as suits"),
    ] = None,
    mode: Annotated[
        str, typer.Option(help="Prompt: bare (the input alone), prompted, or best.")
    ] = "best",
    budget: Annotated[
        float, typer.Option(help="Seconds that training may cost, by a stored table.")
    ] = DEFAULT_BUDGET,
    rank: Annotated[int | None, typer.Option(help="Default: the generator's.")] = None,
    strength: Annotated[float, typer.Option(help="Factor on the adapter's effect.")] = 1.0,
    seed: Annotated[
        int,
        typer.Option(help="Recorded in the adapter's identity; sg-lora and icm-lora draw by it."),
    ] = 0,
    samples: Annotated[
        int, typer.Option(help="Adapters to draw, in folders sample-1 and so on; seeds count up.")
    ] = 1,
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
    """Make a LoRA adapter from a description, a handful of examples, or better both.

    With --inputs a shipped adapter that reads the description answers them; its answers are learned
    for prompts without the description. With --write-inputs another one writes the inputs.

    Example: lorasmith generate "Say whether the review is positive or negative." --out my-adapter
    --examples few.jsonl --try "The soup was cold and the waiter rude."
    """
    if any(not text.strip() for text in attempts or ()):
        raise UsageError("--try needs some text")
    if profile not in get_args(Profile):
        raise UsageError(f"profile must be portable or lossless, not {profile!r}")
    if mode not in get_args(Mode):
        raise UsageError(f"mode must be best, bare or prompted, not {mode!r}")
    summary = produce(
        description,
        out,
        samples=samples,
        attempts=attempts or (),
        overwrite=overwrite,
        examples=examples or (),
        inputs=inputs or (),
        write_inputs=write_inputs,
        refine=refine,
        mode=mode,
        budget=budget,
        generator=generator,
        base=base,
        checkpoints=checkpoint or (),
        multi_task=multi_task,
        library=library,
        rank=rank,
        strength=strength,
        seed=seed,
        profile=profile,
        device=device,
    )
    if as_json:
        typer.echo(json.dumps(summary, ensure_ascii=False))
    else:
        typer.echo("\n".join(readable(made) for made in summary.get("samples", [summary])))


def produce(
    description: str | None,
    out: Path,
    *,
    samples: int = 1,
    attempts: Sequence[str] = (),
    overwrite: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Make the adapters, ask the base, keep them, write the folder; return what `--json` prints.

    Args:
        samples: of more than one, each has a folder in `out` and an object among "samples".
        options: of `lorasmith.generate`.
    """
    from api.service.store import LOCAL, local_store

    require_absent(out, overwrite)
    require_kind(out, folder=True)
    quiet_libraries()
    # 1. The adapters, and the base's answers.
    with progress_bar("training", unit="step") as progress:
        made = lorasmith.generate_samples(description, samples, **options, progress=progress)
    tries = _tries(made, attempts, options.get("base"), options.get("device", "cpu"))
    # 2. Both places.
    folders = _sample_folders(samples)
    store, files = local_store(), {}
    for adapter, folder in zip(made, folders, strict=True):
        store.put(LOCAL, adapter.summary, adapter.files)
        files |= {str(folder / name): content for name, content in adapter.files.items()}
    write_folder(out, files, overwrite=overwrite)
    told = [
        {**a.summary, "milliseconds": a.milliseconds, "out": str(out / folder), "tries": tried}
        for a, folder, tried in zip(made, folders, tries, strict=True)
    ]
    return told[0] if samples == 1 else {"out": str(out), "samples": told}


def _sample_folders(samples: int) -> list[Path]:
    """Where each sample lies in the output; one alone is the output itself."""
    if samples == 1:
        return [Path()]
    return [Path(f"sample-{number}") for number in range(1, samples + 1)]


def readable(summary: dict[str, Any]) -> str:
    """The summary for a person."""
    lines = [
        f"{summary['id']}  {summary['out']}",
        f"  {_source(summary)} for {summary['base_model']}, rank {summary['rank']}, "
        f"sha256 {summary['sha256'][:16]}…",
        f"  {summary['chosen']['reason']}",
        *prospects(summary),
    ]
    for attempt in summary["tries"]:
        lines += [
            "",
            f"  input    {_one_line(attempt['input'])}",
            f"  base     {_one_line(attempt['base'])}",
            f"  adapted  {_one_line(attempt['adapted'])}",
        ]
    return "\n".join(lines)


def prospects(summary: dict[str, Any]) -> list[str]:
    """Lines on training, prompt, score to expect and verdict, as `generate` and `refine` print.

    Warnings follow the verdict, but for that of a low score, which the line before has told.
    """
    lines, refined, expected = [], summary["refined"], summary["expected"]
    if refined is not None:
        lines += training_lines(refined)
    lines.append(f"  prompt it with {_prompt(summary['usage'])}")
    if expected is not None:
        lines.append(
            f"  expect {expected['low']:.0f} to {expected['high']:.0f} of 100 answers to be "
            f"exactly right ({expected['calibration']})"
        )
    lines.append(f"  verified: {summary['report']['verdict']}")
    warnings = [f for f in summary["report"]["findings"] if f["severity"] == "warn"]
    return lines + [f"  {f['message']}" for f in warnings if f["code"] != "expected-low"]


def _prompt(usage: dict[str, str]) -> str:
    """What a prompt consists of."""
    if usage["mode"] == "bare":
        return "the input alone"
    examples = f"\n\n{INPUT}" in usage["template"]
    below = " with its examples (README.md in the folder has the text)" if examples else ""
    return f"the description{below}, a blank line and the input"


def _tries(
    adapters: Sequence[lorasmith.FinishedAdapter],
    inputs: Sequence[str],
    base: str | None,
    device: str,
) -> list[list[dict[str, str]]]:
    """The base's answers without an adapter and with each, as it is stored; a list for each."""
    if not inputs:
        return [[] for _ in adapters]
    print("asking the base model ...", file=sys.stderr)
    from library.base.usage import Usage

    # The base gets the same prompt: an instruction in it helps the base, too.
    usage = Usage(**adapters[0].summary["usage"])  # of one request, so of one usage
    plain = lorasmith.answer(inputs, base=base, device=device, usage=usage)
    answers = [lorasmith.answer(inputs, adapter, base=base, device=device) for adapter in adapters]
    return [
        [
            {"input": text, "base": before, "adapted": after}
            for text, before, after in zip(inputs, plain, adapted, strict=True)
        ]
        for adapted in answers
    ]


def _source(summary: dict[str, Any]) -> str:
    """The generator, and the strategy if it chose one."""
    name, strategy = summary["generator"], summary["chosen"]["strategy"]
    return name if name == strategy else f"{name}: {strategy}"


def _one_line(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 160 else flat[:159] + "…"
