"""`lorasmith library`: build a library of adapters, and look after it."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.console import progress_bar
from api.cli.library_list import (
    SHIPPED_LIBRARY,
    CatalogueUrl,
    Location,
    catalogue_at,
    catalogue_of_build,
    list_adapters,
    note,
)
from library.errors import LorasmithError, UsageError
from library.files import require_absent
from library.quiet import quiet_libraries

if TYPE_CHECKING:
    from library.tasks.files import Task

library = typer.Typer(help="Build a library of adapters, list and check it.", rich_markup_mode=None)
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


@library.command("build")
def library_build(
    tasks: Annotated[list[Path], typer.Option(help="Folder of task files; repeatable.")],
    out: Annotated[str, typer.Option(help="Folder or URL of the library.")],
    base: Annotated[
        str | None,
        typer.Option(help="Base model: Hub id, hub:ID or folder. Default: the packaged one."),
    ] = None,
    recipe: Annotated[
        str,
        typer.Option(
            help="Training recipe: lora, rslora, lora-fa, lora-plus, dora, pissa, olora, "
            "lora-ga, corda, eva, adalora, randlora or vera."
        ),
    ] = "lora",
    rank: Annotated[int, typer.Option(min=1, max=256, help="Rank of every adapter.")] = 8,
    targets: Annotated[
        str | None,
        typer.Option(
            help="Types of modules to adapt, separated by commas. "
            "Default: the model family's, such as q_proj,v_proj."
        ),
    ] = None,
    steps: Annotated[
        int, typer.Option(min=1, help="Maximum number of training steps of an adapter.")
    ] = 300,
    rows: Annotated[
        int, typer.Option(min=1, help="Training rows of one step, for each adapter.")
    ] = 8,
    lr: Annotated[
        float | None, typer.Option(help="Peak learning rate. Default: the recipe's (lora: 0.002).")
    ] = None,
    check_every: Annotated[
        int, typer.Option(min=1, help="Training steps between evaluations on the tune rows.")
    ] = 25,
    patience: Annotated[
        int,
        typer.Option(
            min=0,
            help="Stop an adapter after this many evaluations without a better one; 0: never.",
        ),
    ] = 4,
    snapshots: Annotated[
        int,
        typer.Option(min=0, help="Number of last training states to store with each adapter."),
    ] = 0,
    variants: Annotated[
        int,
        typer.Option(
            min=1,
            help="Adapters for each task; the first learns from all train rows, each other from "
            "a random half.",
        ),
    ] = 1,
    slots: Annotated[
        int, typer.Option(min=1, help="Adapters trained at once in one process.")
    ] = 32,
    shard_size: Annotated[
        int, typer.Option(min=1, help="Adapters in a shard, the unit that a worker builds.")
    ] = 64,
    max_length: Annotated[
        int,
        typer.Option(min=8, help="Leave out rows of more tokens than this, answer included."),
    ] = 320,
    exclude_license: Annotated[
        str,
        typer.Option(help="Leave out tasks of these licence classes, separated by commas."),
    ] = "",
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the initial A and of the order of rows.")
    ] = 0,
    micro_batches: Annotated[
        int,
        typer.Option(min=1, help="Forward passes that a step is split into, by row length."),
    ] = 3,
    workers: Annotated[
        int, typer.Option(min=1, help="Worker processes; each builds one shard at a time.")
    ] = 1,
    executor: Annotated[
        str, typer.Option(help="Where the workers run: local (this machine) or ray.")
    ] = "local",
    ray_address: Annotated[
        str | None,
        typer.Option(help="Address of a Ray cluster. Default: start one on this machine."),
    ] = None,
    device: Annotated[str, typer.Option(help="Device to train on: cpu or cuda.")] = "cpu",
    compile_layers: Annotated[
        bool, typer.Option("--compile", help="Compile the base model with torch.compile.")
    ] = False,
    skip_broken: Annotated[
        bool, typer.Option(help="Skip task files that cannot be read, instead of stopping.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the build of an existing library.")
    ] = False,
    catalogue: CatalogueUrl = None,
    as_json: Json = False,
) -> None:
    """Train an adapter for every task, many at once.

    Example: lorasmith library build --tasks tasks/train --out my-library --steps 300
    """
    from library.trainer.recipes.registry import recipe_named

    settings = recipe_named(recipe, lr=lr)
    if executor not in ("local", "ray"):
        raise UsageError(f"executor must be local or ray, not {executor!r}")
    by_name, broken = _read(tasks, skip_broken)
    excluded = set(filter(None, exclude_license.split(",")))
    by_name = {n: task for n, task in by_name.items() if task.license_class not in excluded}
    from library.base.models import require_device

    require_device(device)
    quiet_libraries()
    from library.base.models import described, load_config, load_tokenizer, resolve_base
    from library.build.build import begin
    from library.build.plan import make_plan
    from library.build.workers import Workplace, build_library
    from library.layout import layout_of
    from library.store.folder import LibraryFolder
    from library.trainer.run_state import TrainConfig

    reference, folder = resolve_base(base), LibraryFolder(out)
    names = targets.split(",") if targets else None
    layout = layout_of(load_config(reference), names, rank=rank)
    plan = make_plan(
        list(by_name.values()),
        load_tokenizer(reference),
        base=described(reference),
        layout=layout,
        recipe=settings,
        config=TrainConfig(
            steps=steps,
            rows=rows,
            slots=slots,
            micro_batches=micro_batches,
            check_every=check_every,
            patience=patience,
            snapshots=snapshots,
        ),
        seed=seed,
        max_length=max_length,
        variants=variants,
        shard_size=shard_size,
    )
    begin(folder, plan, resume=resume)
    alone = executor == "local" and workers == 1
    threads = None if alone else max(1, (os.cpu_count() or 1) // workers)
    with progress_bar("training", unit="step") as progress:
        report = build_library(
            Workplace(out, reference, device, compile_layers, threads),
            plan,
            by_name,
            workers=workers,
            ray=executor == "ray",
            ray_address=ray_address,
            progress=progress,
        )
    summary = report.summary() | {"skipped": {**broken, **plan.skipped}}
    typer.echo(json.dumps(summary) if as_json else _readable(summary, out))
    catalogue_of_build(folder, catalogue)


library.command("list")(list_adapters)


@library.command("show")
def library_show(
    identity: Annotated[str, typer.Argument(help="Id or task.")],
    location: Location = SHIPPED_LIBRARY,
    catalogue: CatalogueUrl = None,
) -> None:
    """An adapter's whole record, as JSON.

    Example: lorasmith library show task001_x --library my-library
    """
    from library.store.catalogue import find

    record = find(catalogue_at(location, catalogue), identity)
    typer.echo(json.dumps(record, indent=1, ensure_ascii=False))


@library.command("pack")
def library_pack(
    location: Location,
    out: Annotated[Path, typer.Option(help="Folder for the packed library.")],
    task: Annotated[list[str] | None, typer.Option(help="Only this task's; repeatable.")] = None,
    rank: Annotated[int | None, typer.Option(min=1, max=256, help="Cut each to this rank.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the folder.")] = False,
) -> None:
    """Write a library as three small files, adapters as int8 rows: the form that ships.

    Example: lorasmith library pack --library my-library --out small --rank 2
    """
    require_absent(out, overwrite)
    from library.store.open import open_library
    from library.store.packed import pack_library

    count = pack_library(open_library(location), out, task or (), rank=rank, overwrite=overwrite)
    size = sum(file.stat().st_size for file in out.iterdir())
    typer.echo(f"{count} adapters, {size / 1e6:.2f} MB  {out}")


@library.command("remove")
def library_remove(
    identity: Annotated[str, typer.Argument(help="Id or task.")],
    location: Location,
    catalogue: CatalogueUrl = None,
) -> None:
    """Take an adapter out of the library.

    Example: lorasmith library remove ad_0123 --library my-library
    """
    from library.store.catalogue import remove_adapter

    record = remove_adapter(catalogue_at(location, catalogue, write=True), identity)
    typer.echo(f"removed {record['id']} ({record['task']})")


@library.command("check")
def library_check(location: Location = SHIPPED_LIBRARY, catalogue: CatalogueUrl = None) -> None:
    """Hash every file again; name what is damaged or missing, and exit 1 if anything is.

    Example: lorasmith library check --library my-library
    """
    from library.store.catalogue import check_library, surplus
    from library.store.records import Selection

    opened = catalogue_at(location, catalogue)
    problems, adapters = check_library(opened), len(opened.entries(Selection()))
    for problem in problems:
        typer.echo(problem, err=True)
    for sentence in surplus(opened):
        note(sentence)
    typer.echo(f"{adapters} adapters, {len(problems) or 'none'} damaged or incomplete")
    if problems:
        raise typer.Exit(1)


def _read(folders: list[Path], skip_broken: bool) -> tuple[dict[str, "Task"], dict[str, str]]:
    """Tasks by name, and the reason for each file that was left out."""
    from library.tasks.files import read_tasks

    tasks_by_name: dict[str, Task] = {}
    broken: dict[str, str] = {}

    def leave_out(file: Path, error: LorasmithError) -> None:
        broken[file.name] = str(error)

    for folder in folders:
        for task in read_tasks(folder, on_broken=leave_out if skip_broken else None):
            if task.name in tasks_by_name:
                raise UsageError(f"two folders hold a task named {task.name}")
            tasks_by_name[task.name] = task
    return tasks_by_name, broken


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
