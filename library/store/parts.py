"""What was added to a library after its plan: further parts, one file each beside the manifest.

A part says tasks and shards; all else is the plan's. It is named by its content and never
rewritten, so that those who add at the same time need no lock.
"""

from contextlib import suppress
from dataclasses import replace

from library.canonical import json_digest
from library.store.folder import RECORDS, LibraryFolder
from library.store.plan import JobPlan, Plan, Shards, shards_from, shards_json

PARTS = "parts"


def whole_plan(folder: LibraryFolder, without: str = "") -> Plan:
    """The plan of a library with its later parts (all but one). Raises as `LibraryFolder.plan`."""
    first = folder.plan()
    names = [f"{PARTS}/{name}" for name in folder.names(PARTS)]
    tasks, added = dict(first.tasks), Shards()
    for name in [name for name in names if name != without]:
        with suppress(FileNotFoundError):  # of an add that was refused a moment ago
            part = folder.read_json(name)
            tasks = {**part["tasks"], **tasks}
            added += shards_from(part["shards"])
    return replace(first, tasks=tasks, shards=first.shards + added, first_added=len(first.shards))


def write_part(folder: LibraryFolder, tasks: dict[str, str], shards: Shards) -> str:
    """Add a part to a library's plan: digests of tasks' rows, and jobs. Returns its file's name."""
    part = {"tasks": tasks, "shards": shards_json(shards)}
    folder.write_json(name := f"{PARTS}/{json_digest(part)[:40]}.json", part)
    return name


def recorded_jobs(folder: LibraryFolder, plan: Plan, shard: int) -> set[JobPlan]:
    """The jobs of a shard that have their records."""
    names = set(folder.names(f"{RECORDS}/{plan.folder_number(shard):04}"))
    return {job for job in plan.shards[shard] if f"{job.name}.json" in names}
