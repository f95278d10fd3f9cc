"""`lorasmith refine`: train an adapter on examples, or on a teacher's answers to inputs."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

import lorasmith
from api.cli.console import progress_bar
from api.cli.generate import prospects
from api.cli.library_list import SHIPPED_LIBRARY, Location
from generator.refine.limits import DEFAULT_BUDGET
from library.files import require_absent, require_kind
from library.quiet import quiet_libraries
from lorasmith.loading import Profile


def refine_command(
    out: Annotated[Path, typer.Option(help="Folder for the refined adapter.")],
    adapter: Annotated[
        str | None,
        typer.Argument(help="Folder, or id or task of the library; none: a fresh adapter."),
    ] = None,
    examples: Annotated[
        Path | None, typer.Option(help="JSONL of input and output; - reads stdin.")
    ] = None,
    inputs: Annotated[
        Path | None,
        typer.Option(help="Inputs without answers, JSONL or one a line; - reads stdin."),
    ] = None,
    multi_task: Annotated[
        Path | None,
        typer.Option(help="Folder of the adapter that answers inputs (default: one that ships)."),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(help="Steps of training.", show_default="as suits"),
    ] = None,
    budget: Annotated[
        float, typer.Option(help="Seconds that training may cost, by a stored table.")
    ] = DEFAULT_BUDGET,
    base: Annotated[
        str | None, typer.Option(help="Base model (default: the one that the adapter names).")
    ] = None,
    library: Location = SHIPPED_LIBRARY,
    seed: Annotated[int, typer.Option(help="Order of the rows, and a fresh start.")] = 0,
    profile: Annotated[Profile, typer.Option(help="portable or lossless.")] = "portable",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing folder.")
    ] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Train an adapter on a handful of examples: one that you have further, or a fresh one.

    With --inputs a multi-task adapter that reads the description answers them; its answers are
    learned for prompts without the description.

    Example: lorasmith refine my-adapter --examples few.jsonl --out refined
    """
    require_absent(out, overwrite)
    require_kind(out, folder=True)
    quiet_libraries()
    with progress_bar("refining", unit="step") as progress:
        refined = lorasmith.refine(
            examples or (),
            adapter,
            inputs=inputs or (),
            multi_task=multi_task,
            steps=steps,
            budget=budget,
            seed=seed,
            base=base,
            library=library,
            profile=profile,
            device=device,
            progress=progress,
        )
    refined.save(out, overwrite=overwrite)
    summary = {**refined.summary, "milliseconds": refined.milliseconds, "out": str(out)}
    typer.echo(json.dumps(summary, ensure_ascii=False) if as_json else _readable(summary))


def _readable(summary: dict[str, Any]) -> str:
    start = summary["start"] or "a fresh adapter"
    return "\n".join(
        [
            f"{summary['id']}  {summary['out']}",
            f"  from {start}, for {summary['base_model']}, sha256 {summary['sha256'][:16]}…",
            *prospects(summary),
        ]
    )
