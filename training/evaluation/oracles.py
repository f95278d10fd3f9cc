"""Oracles trained on the spot, for an evaluation that was given none: kept in the cache."""

from collections.abc import Sequence

from library.base.models import BaseReference, described, load_config, load_tokenizer
from library.build.build import begin
from library.build.plan import make_plan
from library.build.workers import Workplace, build_library
from library.canonical import json_digest
from library.files import cache_dir
from library.layout import layout_of
from library.progress import Progress, no_progress
from library.store.folder import LibraryFolder
from library.tasks.files import Task
from library.trainer.recipes.registry import RECIPES
from library.trainer.run_state import TrainConfig


def trained_oracles(
    tasks: Sequence[Task], base: BaseReference, device: str, progress: Progress = no_progress
) -> str:
    """The folder of a library with an adapter for each task that has rows to train on.

    Built with the defaults of `library build`; a build that was stopped goes on where it was.
    Raises TaskFileError if no task can be trained on.
    """
    plan = make_plan(
        tasks,
        load_tokenizer(base),
        base=described(base),
        layout=layout_of(load_config(base)),
        recipe=RECIPES["lora"],
        config=TrainConfig(),
    )
    kind = "cpu" if device == "cpu" else "gpu"
    folder = cache_dir() / "oracles" / f"{kind}-{json_digest(plan.to_dict())[:16]}"
    begin(LibraryFolder(folder), plan, resume=True)
    workplace = Workplace(str(folder), base, device)
    build_library(workplace, plan, {task.name: task for task in tasks}, progress=progress)
    return str(folder)
