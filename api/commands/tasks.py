"""`lorasmith tasks`: look at task files before relying on them."""

from pathlib import Path
from typing import Annotated

import typer

from library.errors import LorasmithError, MissingPath, TaskFileError
from library.tasks import read_task, read_tasks, task_files

tasks = typer.Typer(help="List or check task files.", rich_markup_mode=None)


@tasks.command("list")
def list_tasks(path: Annotated[Path, typer.Argument(help="Folder or file.")]) -> None:
    """One line a task: name, rows to train, tune and test on, and its definition.

    Example: lorasmith tasks list tasks/public_heldout
    """
    for task in read_tasks(path):
        rows = f"{len(task.train)}/{len(task.tune)}/{len(task.test)}"
        typer.echo(f"{task.name}\t{rows}\t{task.definition.splitlines()[0][:80]}")


@tasks.command("check")
def check_tasks(path: Annotated[Path, typer.Argument(help="Folder or file.")]) -> None:
    """Read every task file; name the broken ones and exit 1 if there are any.

    Example: lorasmith tasks check tasks/train
    """
    files, broken = (task_files(path) if path.is_dir() else [path]), 0
    if not files:
        raise TaskFileError(f"{path} holds no task files (*.jsonl.gz, *.json or *.jsonl)")
    for file in files:
        try:
            read_task(file)
        except MissingPath:
            raise
        except LorasmithError as error:
            broken += 1
            typer.echo(str(error), err=True)
    if not broken:
        read_tasks(path)  # what concerns the folder: names that occur twice, paraphrases, index
    typer.echo(f"{len(files)} task files, {broken or 'none'} broken")
    if broken:
        raise typer.Exit(1)
