"""`lorasmith tasks`: list and check task files, or rebuild ours."""

from pathlib import Path
from typing import Annotated

import typer

from api.cli.console import progress_bar
from library.errors import TaskFileError, UnknownName, UsageError
from library.files import require_absent, write_folder
from library.tasks.files import MalformedTask, read_task, read_tasks, task_paths

NAMED = 5  # files that are named of those with one kind of fault
PATH_HELP = "Folder, file, or - for standard input."
tasks = typer.Typer(help="List, check or import task files.", rich_markup_mode=None)


@tasks.command("list")
def list_tasks(path: Annotated[Path, typer.Argument(help=PATH_HELP)]) -> None:
    """Print one line per task: name, numbers of train, tune and test rows, definition.

    Example: lorasmith tasks list tasks/public_heldout
    """
    for task in read_tasks(path):
        rows = f"{len(task.train)}/{len(task.tune)}/{len(task.test)}"
        typer.echo(f"{task.name}\t{rows}\t{task.definition.splitlines()[0][:80]}")


@tasks.command("check")
def check_tasks(path: Annotated[Path, typer.Argument(help=PATH_HELP)]) -> None:
    """Read every task file; print each kind of fault once, and exit 1 if there are any.

    Example: lorasmith tasks check tasks/train
    """
    files = task_paths(path)
    faults: dict[str, list[MalformedTask]] = {}
    for file in files:
        try:
            read_task(file)
        except MalformedTask as error:
            faults.setdefault(error.fault, []).append(error)
    for errors in faults.values():
        typer.echo(_summary(errors), err=True)
    broken = sum(map(len, faults.values()))
    if not broken and path.is_dir():
        read_tasks(path)  # faults of the folder: names that occur twice, paraphrases, index
    typer.echo(f"{len(files)} task files, {broken or 'none'} broken")
    if broken:
        raise typer.Exit(1)


def _summary(errors: list[MalformedTask]) -> str:
    """One line for all files with one kind of fault: the first five, and how many there are."""
    if len(errors) == 1:
        return str(errors[0])
    files = [f"{e.path.name}{f' ({e.position})' if e.position else ''}" for e in errors[:NAMED]]
    more = ", …" if len(errors) > NAMED else ""
    return f"{errors[0].fault}: {len(errors)} files: {', '.join(files)}{more}"


@tasks.command("import")
def import_tasks(
    path: Annotated[Path, typer.Argument(help="Clone of allenai/natural-instructions.")],
    out: Annotated[Path, typer.Option(help="Folder to create.")],
    sni: Annotated[bool, typer.Option("--sni", help="Super-NaturalInstructions.")] = False,
    split: Annotated[str, typer.Option(help="train, train_extra, public_heldout or all.")] = "all",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the folder.")] = False,
) -> None:
    """Rebuild the tasks that lorasmith was trained and measured on; exit 1 if any is incomplete.

    Example: lorasmith tasks import natural-instructions --sni --out tasks
    """
    from library.tasks.sni import rebuild_tasks
    from library.tasks.sni_manifest import SHIPPED, SPLITS, read_sni_manifest

    if not sni:
        raise UsageError("give --sni: only Super-NaturalInstructions can be imported so far")
    if split not in (*SPLITS, "all"):
        raise UnknownName(f"unknown split '{split}'; known: {', '.join(SPLITS)}, all")
    require_absent(out, overwrite)
    if path.resolve().is_relative_to(out.resolve()):
        raise UsageError(f"{out} holds what is to be imported: choose another --out")
    selected = [task for task in read_sni_manifest(SHIPPED) if split in ("all", task.split)]
    with progress_bar("tasks", unit="task") as progress:
        rebuilt = rebuild_tasks(path, selected, progress)
    for problem in rebuilt.problems:
        typer.echo(problem, err=True)
    if not rebuilt.tasks:
        raise TaskFileError(f"none of the {len(selected)} tasks is complete in {path}")
    write_folder(out, rebuilt.files, overwrite=overwrite)
    typer.echo(f"{rebuilt.tasks} of {len(selected)} tasks in {out}, equal to the manifest")
    typer.echo("not rebuilt: paraphrased descriptions, which do not come from SNI", err=True)
    if rebuilt.problems:
        raise typer.Exit(1)
