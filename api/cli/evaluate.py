"""`lorasmith evaluate`: measure methods on tasks."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli.console import progress_bar
from library.errors import UsageError
from library.files import require_absent, require_kind, write_file
from library.quiet import quiet_libraries


def evaluate_command(
    tasks: Annotated[Path, typer.Option(help="Folder of task files.")],
    methods: Annotated[str, typer.Option(help="For example base,text-to-lora:gibberish.")],
    out: Annotated[Path, typer.Option(help="Where the JSON report goes.")],
    mode: Annotated[str, typer.Option(help="bare, prompted, best; commas join.")] = "bare",
    base: Annotated[str | None, typer.Option(help="Hub id, hub:ID or folder.")] = None,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(help="A generator's, in place of the shipped one; repeatable."),
    ] = None,
    library: Annotated[str | None, typer.Option(help="Default: the shipped sample.")] = None,
    oracles: Annotated[str | None, typer.Option(help="For oracle; default: --library.")] = None,
    multi_task: Annotated[Path | None, typer.Option(help="Adapter, or one a mode in it.")] = None,
    predictor: Annotated[Path | None, typer.Option(help="Of lora-rar; default: shipped.")] = None,
    router: Annotated[Path | None, typer.Option(help="For per-request and dlp.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The first N tasks by name.")] = None,
    paraphrases: Annotated[
        int,
        typer.Option(min=0, help="Under N wordings of each description: how far scores move."),
    ] = 0,
    predictions: Annotated[Path | None, typer.Option(help="JSONL of every answer.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="The table, for a document.")] = None,
    html: Annotated[Path | None, typer.Option(help="One page with tables and pictures.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of derangements, paraphrases and draws.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    batch_size: Annotated[int, typer.Option(min=1, help="Prompts decoded together.")] = 32,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing report.")] = False,
) -> None:
    """Measure methods on tasks: a JSON report, and a table on the screen.

    Example: lorasmith evaluate --tasks tasks/public_heldout --methods base,text-to-lora
    --mode bare --out report.json
    """
    from training.evaluation.methods import parse_methods

    parsed, modes = parse_methods(methods), _modes(mode)
    if paraphrases == 1:
        raise UsageError("--paraphrases needs at least two, to compare them")
    targets = [path for path in (out, predictions, markdown, html) if path is not None]
    for target in targets:
        require_absent(target, overwrite)
        require_kind(target, folder=False)
    if len({target.resolve() for target in targets}) < len(targets):
        raise UsageError("--out, --predictions, --markdown and --html must differ")
    from library.base.models import require_device

    require_device(device)
    quiet_libraries()
    from training.evaluation.setup import Options, run_evaluation

    options = Options(
        tasks,
        parsed,
        modes,
        progress_bar,
        limit,
        base,
        checkpoint or [],
        library,
        oracles,
        multi_task,
        predictor,
        router,
        device,
        seed,
        batch_size,
        paraphrases,
    )
    report, answers = run_evaluation(options, command=_command(), commit=running_commit())
    from training.evaluation.report import table

    if predictions is not None:
        write_file(predictions, answers)
    if markdown is not None:
        write_file(markdown, (table(report) + "\n").encode())
    if html is not None:
        from training.evaluation.page import page

        write_file(html, page(report).encode())
    # Last, as it says that all is done.
    write_file(out, (json.dumps(report, indent=1) + "\n").encode())
    typer.echo(table(report))


def _modes(text: str) -> list[Any]:
    modes, known = [mode.strip() for mode in text.split(",")], ("bare", "prompted", "best")
    if any(mode not in known for mode in modes) or len(set(modes)) != len(modes):
        raise UsageError(f"mode must be some of bare, prompted and best, not {text!r}")
    return modes


def _command() -> str:
    return shlex.join(["lorasmith", *sys.argv[1:]])


def running_commit() -> str | None:
    """The commit of the working copy that this code runs from, if it is one."""
    folder = Path(__file__).parent.parent.parent
    commit = os.environ.get("LORASMITH_COMMIT")
    if not (folder / ".git").exists():  # installed; a repository further up is somebody else's
        return commit
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return commit
    return done.stdout.strip()
