"""The same library from one process, from several and from Ray, workers killed on the way."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
from building import command, content, tasks  # noqa: F401  (a fixture)

from api.cli.main import main

LONGER = ("--steps", "60")  # long enough for somebody to be killed in the middle
POOL = (*LONGER, "--workers", "2", "--resume")
RAY = (*POOL, "--executor", "ray")


@pytest.fixture(scope="module")
def alone(
    tasks: Path,
    tiny_base: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """What one process makes, undisturbed."""
    out = tmp_path_factory.mktemp("libraries") / "alone"
    assert main(command(tasks, tiny_base, str(out), *LONGER)) == 0
    return out


def files(library: Path) -> dict[str, bytes]:
    return {str(f.relative_to(library)): f.read_bytes() for f in library.glob("adapters/ad_*/*")}


def children(parent: int, match: Callable[[str], bool]) -> list[int]:
    """Processes below `parent` whose command line matches."""
    listing = subprocess.run(
        ["ps", "-wweo", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    )
    rows = [line.split(None, 2) for line in listing.stdout.splitlines()]
    below, grown = {parent}, True
    while grown:
        more = {int(row[0]) for row in rows if int(row[1]) in below} | below
        grown, below = more != below, more
    return [int(r[0]) for r in rows if int(r[0]) in below - {parent} and match(r[2])]


def is_ray_worker(line: str) -> bool:
    return line.startswith("ray::run_shard")


def is_pool_worker(line: str) -> bool:
    return "spawn_main" in line and "resource_tracker" not in line


@pytest.mark.parametrize(
    ("executor", "is_worker"), [(POOL, is_pool_worker), (RAY, is_ray_worker)], ids=["pool", "ray"]
)
def test_a_killed_worker_changes_nothing(
    tasks: Path,
    tiny_base: Path,
    alone: Path,
    tmp_path: Path,
    executor: tuple[str, ...],
    is_worker: Callable[[str], bool],
) -> None:
    out = tmp_path / "library"
    process = subprocess.Popen(
        [sys.executable, "-m", "api", *command(tasks, tiny_base, str(out), *executor)],
        cwd=tiny.ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and not list(out.glob("records/*/*.json")):
        time.sleep(0.01)
    victims = children(process.pid, is_worker)
    assert victims, "the build was over before a worker could be killed"
    os.kill(victims[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert content(out) == content(alone)
    assert files(out) == files(alone)


def test_an_unknown_executor_is_refused(tmp_path: Path) -> None:
    arguments = ["library", "build", "--tasks", str(tmp_path), "--out", str(tmp_path / "x")]
    assert main([*arguments, "--executor", "slurm"]) == 2
