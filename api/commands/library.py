"""`lorasmith library`: build a library of adapters, and look after it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.console import progress_bar, quiet_libraries
from library.errors import LorasmithError, UsageError

if TYPE_CHECKING:
    from library.tasks import Task

library = typer.Typer(help="Build a library of adapters, list and check it.", rich_markup_mode=None)
Place = Annotated[str, typer.Option("--library", help="Folder or URL of the library.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


@library.command()
def build(
    tasks: Annotated[list[Path], typer.Option(help="Folder of task files; repeatable.")],
    out: Annotated[str, typer.Option(help="Folder or URL of the library.")],
    base: Annotated[str | None, typer.Option(help="Hub id, hub:ID or folder.")] = None,
    recipe: Annotated[str, typer.Option(help="How an adapter is trained.")] = "lora",
    rank: Annotated[int, typer.Option(min=1, max=256, help="Of every adapter.")] = 8,
    targets: Annotated[str | None, typer.Option(help="Modules, with commas.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="The most, for each adapter.")] = 300,
    rows: Annotated[int, typer.Option(min=1, help="Rows of a step, for each adapter.")] = 8,
    lr: Annotated[float | None, typer.Option(help="Peak rate; default: the recipe's.")] = None,
    check_every: Annotated[int, typer.Option(min=1, help="Steps between looks.")] = 50,
    patience: Annotated[int, typer.Option(min=0, help="Looks before stopping; 0: never.")] = 3,
    snapshots: Annotated[int, typer.Option(min=0, help="Last states to keep.")] = 0,
    variants: Annotated[int, typer.Option(min=1, help="Adapters a task.")] = 1,
    slots: Annotated[int, typer.Option(min=1, help="Adapters at once.")] = 32,
    shard_size: Annotated[int, typer.Option(min=1, help="Adapters a shard.")] = 64,
    max_length: Annotated[int, typer.Option(min=8, help="Longer rows are left out.")] = 320,
    exclude_license: Annotated[str, typer.Option(help="Licence classes, with commas.")] = "",
    seed: Annotated[int, typer.Option(min=0, help="Of the shared A and of orders.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    compile_layers: Annotated[bool, typer.Option("--compile", help="torch.compile.")] = False,
    skip_broken: Annotated[bool, typer.Option(help="Leave broken task files out.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where it stopped.")] = False,
    as_json: Json = False,
) -> None:
    """Train an adapter for every task, many at once.

    Example: lorasmith library build --tasks tasks/train --out my-library --steps 300
    """
    from library.recipes import recipe_named

    chosen = recipe_named(recipe, lr=lr)
    found, broken = _read(tasks, skip_broken)
    excluded = set(filter(None, exclude_license.split(",")))
    found = {name: task for name, task in found.items() if task.license_class not in excluded}
    from api.commands.common import check_device

    check_device(device)
    quiet_libraries()
    import torch

    from library.base import load_base, load_config, resolve_base
    from library.build import begin, require_room
    from library.build import build as run
    from library.compiled import compile_layers as compiled
    from library.folder import LibraryFolder
    from library.layout import layout_of
    from library.plan import make_plan
    from library.trainer import TrainConfig

    reference = resolve_base(base)
    names = targets.split(",") if targets else None
    layout = layout_of(load_config(reference), names, rank=rank)
    folder = LibraryFolder(out)
    require_room(folder, resume)
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    loaded = load_base(reference, device=device, dtype=dtype)
    config = TrainConfig(
        steps=steps,
        rows=rows,
        slots=slots,
        check_every=check_every,
        patience=patience,
        snapshots=snapshots,
    )
    plan = make_plan(
        list(found.values()),
        loaded.tokenizer,
        base={"id": reference.name, "sha256": loaded.sha256, "source": loaded.source},
        layout=layout,
        recipe=chosen,
        config=config,
        seed=seed,
        max_length=max_length,
        variants=variants,
        shard_size=shard_size,
    )
    plan = begin(folder, plan, resume=resume)
    if compile_layers:
        compiled(loaded.model)
    with progress_bar("training", unit="step") as progress:
        report = run(folder, plan, found, loaded, progress)
    summary = report.summary() | {"skipped": {**broken, **plan.skipped}}
    if device != "cpu":
        summary["gpu_memory_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
    typer.echo(json.dumps(summary) if as_json else _readable(summary, out))


@library.command("list")
def list_adapters(place: Place, as_json: Json = False) -> None:
    """One line an adapter: id, score on its tune rows, task.

    Example: lorasmith library list --library my-library
    """
    from library.catalogue import open_library, records

    keys = ("id", "sha256", "task", "recipe", "base_model", "rank")
    rows = [
        {**{key: record[key] for key in keys}, "score": record["scores"].get("tune_accuracy")}
        for record in records(open_library(place))
    ]
    if as_json:
        typer.echo(json.dumps({"adapters": rows}))
        return
    for row in rows:
        score = "     -" if row["score"] is None else f"{row['score']:6.3f}"
        typer.echo(f"{row['id']}  {score}  {row['task']}")


@library.command()
def show(identity: Annotated[str, typer.Argument(help="Id or task.")], place: Place) -> None:
    """An adapter's whole record, as JSON.

    Example: lorasmith library show task001_x --library my-library
    """
    from library.catalogue import find, open_library

    typer.echo(json.dumps(find(open_library(place), identity), indent=1, ensure_ascii=False))


@library.command()
def remove(identity: Annotated[str, typer.Argument(help="Id or task.")], place: Place) -> None:
    """Take an adapter out of the library.

    Example: lorasmith library remove ad_0123 --library my-library
    """
    from library.catalogue import open_library
    from library.catalogue import remove as take_out

    record = take_out(open_library(place), identity)
    typer.echo(f"removed {record['id']} ({record['task']})")


@library.command()
def check(place: Place) -> None:
    """Hash every file again; name what is damaged or missing, and exit 1 if anything is.

    Example: lorasmith library check --library my-library
    """
    from library.catalogue import check as problems_of
    from library.catalogue import open_library, records

    folder = open_library(place)
    problems = problems_of(folder)
    for problem in problems:
        typer.echo(problem, err=True)
    typer.echo(f"{len(records(folder))} adapters, {len(problems) or 'none'} damaged or incomplete")
    if problems:
        raise typer.Exit(1)


def _read(folders: list[Path], skip_broken: bool) -> tuple[dict[str, "Task"], dict[str, str]]:
    """Tasks by name, and the reason for each file that was left out."""
    from library.tasks import read_tasks

    found: dict[str, Task] = {}
    broken: dict[str, str] = {}

    def leave_out(file: Path, error: LorasmithError) -> None:
        broken[file.name] = str(error)

    for folder in folders:
        for task in read_tasks(folder, on_broken=leave_out if skip_broken else None):
            if task.name in found:
                raise UsageError(f"two folders hold a task named {task.name}")
            found[task.name] = task
    return found, broken


def _readable(summary: Mapping[str, Any], out: str) -> str:
    lines = [
        f"{out}: {summary['adapters']} adapters in {summary['seconds']:.1f} s "
        f"({summary['tokens_per_second']:,.0f} tokens/s, {100 * summary['padding']:.1f} % padding)"
    ]
    if summary["kept"]:
        lines.append(f"{summary['kept']} were there already")
    if summary["failed"]:
        lines.append(f"{summary['failed']} never stayed finite and were given up")
    lines += [f"skipped: {reason}" for reason in summary["skipped"].values()]
    return "\n".join(lines)
