"""Who builds the shards of a library: this machine's processes, or a Ray cluster.

A shard is a pure function of the plan in the library's folder and of its tasks, and an adapter that
is stored is never rewritten. So workers need not know of each other, and one that dies costs the
shard that it was at: another worker replays it.
"""

import functools
import multiprocessing
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

import torch

from library.base.compiled import compile_layers
from library.base.models import BaseModel, BaseReference, fast_dtype, load_base
from library.build.build import BuildReport, Progress, build_shard, build_shards
from library.errors import LorasmithError, UsageError
from library.store.folder import RECORDS, LibraryFolder
from library.store.plan import Plan
from library.tasks.files import Task

LOST_IN_A_ROW = 3  # workers that may die without any shard being finished
POLL = 0.5  # seconds between looks at how far the workers are


class WorkerLost(LorasmithError):
    """Workers die again and again (killed for memory, say)."""

    code = "worker-lost"


class ClusterError(LorasmithError):
    """A cluster that cannot be reached."""

    code = "no-cluster"


@dataclass(frozen=True)
class Workplace:
    """What every worker has to know.

    Attributes:
        place: the library's folder or URL, which all workers reach.
        base: the base model.
        device: "cpu" or "cuda"; local workers share out the GPUs of the machine.
        compiled: torch.compile the base's layers.
        threads: of each worker; None leaves torch's own number.
    """

    place: str
    base: BaseReference
    device: str
    compiled: bool = False
    threads: int | None = None


def run_shard(at: Workplace, number: int, tasks: Mapping[str, Task]) -> BuildReport:
    """Build one shard in this process; the base is loaded once a process."""
    folder = LibraryFolder(at.place)
    plan = folder.plan()
    report = BuildReport()
    build_shard(folder, plan, number, tasks, _base(at), report, lambda _: None)
    if at.device != "cpu":
        report.memory = torch.cuda.max_memory_allocated()
    return report


def build_library(
    at: Workplace,
    plan: Plan,
    tasks: Mapping[str, Task],
    *,
    workers: int = 1,
    ray: bool = False,
    ray_address: str | None = None,
    progress: Progress | None = None,
) -> BuildReport:
    """Build what the plan lacks: in this process, with several of this machine, or on Ray."""
    if ray:
        return build_on_ray(at, plan, tasks, workers, ray_address, progress)
    if workers > 1:
        return build_in_pool(at, plan, tasks, workers, progress)
    report = build_shards(LibraryFolder(at.place), plan, tasks, _base(at), progress)
    report.memory = torch.cuda.max_memory_allocated() if at.device != "cpu" else 0
    return report


def build_in_pool(
    at: Workplace,
    plan: Plan,
    tasks: Mapping[str, Task],
    workers: int,
    progress: Progress | None = None,
) -> BuildReport:
    """Build with `workers` processes of this machine.

    Raises:
        WorkerLost: they die without finishing a shard.
        LorasmithError: what a worker raised.
    """
    total, started = BuildReport(), time.monotonic()
    todo, lost = set(range(len(plan.shards))), 0
    while todo:
        try:
            for number, report in _pool(at, plan, tasks, sorted(todo), workers, progress):
                total.join(report)
                todo.remove(number)
                lost = 0
        except BrokenProcessPool as error:
            lost += 1
            if lost == LOST_IN_A_ROW:
                raise WorkerLost(
                    "workers die before they finish a shard; --resume goes on with what is stored"
                ) from error
    total.seconds = time.monotonic() - started
    return total


def build_on_ray(
    at: Workplace,
    plan: Plan,
    tasks: Mapping[str, Task],
    workers: int,
    address: str | None = None,
    progress: Progress | None = None,
) -> BuildReport:
    """Build over a Ray cluster; without an address, over one of `workers` started here.

    Ray runs a shard again whose worker died.

    Raises:
        UsageError: Ray is not installed.
        ClusterError: there is no cluster at the address.
        WorkerLost: a shard's workers died again and again.
    """
    try:
        import ray
        from ray.exceptions import RayTaskError, WorkerCrashedError
    except ImportError as error:
        raise UsageError(
            "building on Ray needs it installed: pip install 'lorasmith[cluster]'"
        ) from error
    local: dict[str, Any] = {"num_cpus": workers, "include_dashboard": False}
    try:
        ray.init(address=address, log_to_driver=False, **({} if address else local))
    except ConnectionError as error:
        raise ClusterError(f"no Ray cluster answers at {address}") from error
    total, started = BuildReport(), time.monotonic()
    gpus = min(1.0, max(1, torch.cuda.device_count()) / workers) if at.device != "cpu" else 0
    remote = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=LOST_IN_A_ROW)(run_shard)
    try:
        left = [remote.remote(at, n, tasks_of(plan, n, tasks)) for n in range(len(plan.shards))]
        while left:
            done, left = ray.wait(left, timeout=POLL)
            for report in ray.get(done):
                total.join(report)
            _tell(at, plan, progress)
    except RayTaskError as error:
        raise error.cause if isinstance(error.cause, LorasmithError) else error from error
    except WorkerCrashedError as error:
        raise WorkerLost(f"Ray lost a shard's workers {LOST_IN_A_ROW} times") from error
    finally:
        ray.shutdown()
    total.seconds = time.monotonic() - started
    return total


def tasks_of(plan: Plan, number: int, tasks: Mapping[str, Task]) -> dict[str, Task]:
    """The tasks of one shard."""
    return {job.task: tasks[job.task] for job in plan.shards[number]}


def _pool(
    at: Workplace,
    plan: Plan,
    tasks: Mapping[str, Task],
    numbers: list[int],
    workers: int,
    progress: Progress | None,
) -> Iterator[tuple[int, BuildReport]]:
    """Shards as they are finished. Raises BrokenProcessPool if a worker dies."""
    context = multiprocessing.get_context("spawn")
    places = context.Queue()
    for place in range(workers):
        places.put(place)
    with ProcessPoolExecutor(workers, context, _begin, (at, places)) as pool:
        left: dict[Future[BuildReport], int] = {
            pool.submit(run_shard, at, n, tasks_of(plan, n, tasks)): n for n in numbers
        }
        try:
            while left:
                done, _ = wait(left, POLL, FIRST_COMPLETED)
                for future in done:
                    yield left.pop(future), future.result()
                _tell(at, plan, progress)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _begin(at: Workplace, places: Any) -> None:
    """A local worker's start: a GPU of its own where there are."""
    if at.device == "cuda":
        torch.cuda.set_device(places.get() % torch.cuda.device_count())


@functools.lru_cache(maxsize=1)
def _base(at: Workplace) -> BaseModel:
    if at.threads is not None:
        torch.set_num_threads(at.threads)
    base = load_base(at.base, device=at.device, dtype=fast_dtype(at.device))
    if at.compiled:
        compile_layers(base.model)
    return base


def _tell(at: Workplace, plan: Plan, progress: Progress | None) -> None:
    """Progress in steps, from the records that are there."""
    if progress is None:
        return
    folder = LibraryFolder(at.place)
    stored = sum(len(folder.names(f"{RECORDS}/{n:04}")) for n in range(len(plan.shards)))
    jobs = sum(map(len, plan.shards))
    progress(plan.config.steps * min(stored, jobs), plan.config.steps * jobs)
