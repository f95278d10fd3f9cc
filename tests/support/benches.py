"""The benches of benchmarks/: each has tasks for choosing and, in `reporting`, for reporting."""

from pathlib import Path

import tiny

from library.canonical import file_digest
from library.tasks.files import Task, read_tasks

BENCHES = ("user_tasks", "short_requests")


def halves(name: str) -> tuple[Path, Path]:
    """The folders of a bench's tasks for choosing and for reporting."""
    folder = tiny.ROOT / "benchmarks" / name
    return folder, folder / "reporting"


def bench_tasks(name: str) -> list[Task]:
    """All tasks of a bench, those for choosing first."""
    return [task for half in halves(name) for task in read_tasks(half)]


def stated_digests(name: str) -> dict[str, str]:
    """SHA256SUMS: the digest of each file of a bench by its path in it."""
    lines = (halves(name)[0] / "SHA256SUMS").read_text().splitlines()
    return {path: digest for digest, path in (line.split() for line in lines)}


def present_digests(name: str) -> dict[str, str]:
    """The same of the files that are there."""
    choosing, reporting = halves(name)
    files = [*choosing.glob("*.jsonl"), *choosing.glob("*.txt"), *reporting.glob("*")]
    return {str(file.relative_to(choosing)): file_digest(file) for file in files}
