"""Workers that build the shards of a library: this machine's processes, or a Ray cluster.

A shard is a pure function of the plan and of its tasks, and an adapter that is stored is never
rewritten. So workers need not know of each other, and one that dies costs the shard that it was at:
another worker replays it.
"""

import functools
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

import torch

from library.base.compiled import compile_layers
from library.base.models import BaseModel, BaseReference, fast_dtype, load_base
from library.build.build import BuildReport, ShardBuilder
from library.errors import LorasmithError, UsageError
from library.progress import Progress, no_progress
from library.store.folder import LibraryFolder
from library.store.parts import recorded_jobs
from library.store.plan import Plan
from library.tasks.files import Task

LOST_IN_A_ROW = 3  # workers that may die without any shard being finished
POLL = 0.5  # seconds between reports of progress


class WorkerLost(LorasmithError):
    """Workers die again and again (killed for memory, say)."""

    code = "worker-lost"


class ClusterError(LorasmithError):
    """A cluster that cannot be reached."""

    code = "no-cluster"


@dataclass(frozen=True)
class Workplace:
    """The set-up of every worker.

    Attributes:
        library: the library's folder or URL, which all workers reach.
        base: the base model.
        device: "cpu" or "cuda"; local workers share out the GPUs of the machine.
        compiled: torch.compile the base's layers.
        threads: of each worker; None leaves torch's own number.
    """

    library: str
    base: BaseReference
    device: str
    compiled: bool = False
    threads: int | None = None


@dataclass(frozen=True)
class Build:
    """A plan, its tasks by name, the workers' set-up, and its progress in steps."""

    workplace: Workplace
    plan: Plan
    tasks: Mapping[str, Task]
    progress: Progress = no_progress

    @property
    def numbers(self) -> list[int]:
        """The shards that have jobs."""
        return [number for number, jobs in enumerate(self.plan.shards) if jobs]

    def shard(self, number: int) -> tuple[Workplace, Plan, int, dict[str, Task]]:
        """The arguments of `run_shard`, with the tasks of this shard alone."""
        tasks = {job.task: self.tasks[job.task] for job in self.plan.shards[number]}
        return self.workplace, self.plan, number, tasks

    def watch(self) -> Callable[[], None]:
        """A function that reports progress by counting the records in the library."""
        folder, steps = LibraryFolder(self.workplace.library), self.plan.config.steps
        shards, jobs = range(len(self.plan.shards)), sum(map(len, self.plan.shards))

        def report() -> None:
            stored = sum(len(recorded_jobs(folder, self.plan, number)) for number in shards)
            self.progress(steps * stored, steps * jobs)

        return report


def run_shard(
    workplace: Workplace, plan: Plan, number: int, tasks: Mapping[str, Task]
) -> BuildReport:
    """Build one shard in this process; the base is loaded once a process."""
    return _builder(workplace, plan).build(number, tasks)


def build_library(
    workplace: Workplace,
    plan: Plan,
    tasks: Mapping[str, Task],
    *,
    workers: int = 1,
    ray: bool = False,
    ray_address: str | None = None,
    progress: Progress = no_progress,
) -> BuildReport:
    """Build what is missing of a library that has begun: in this process, in several, or on Ray.

    Raises:
        UsageError: Ray is not installed.
        ClusterError: there is no cluster at the address.
        WorkerLost: workers die again and again without finishing a shard.
        LorasmithError: what a worker raised.
    """
    build = Build(workplace, plan, tasks, progress)
    if ray:
        reports = on_ray(build, workers, ray_address)
    elif workers > 1:
        reports = in_pool(build, workers)
    else:
        reports = _builder(workplace, plan).build_all(tasks, progress)
    total, started = BuildReport(), time.monotonic()
    for report in reports:
        total.add(report)
    total.seconds = time.monotonic() - started
    return total


def in_pool(build: Build, workers: int) -> Iterator[BuildReport]:
    """Build with `workers` processes of this machine. Raises WorkerLost."""
    todo, lost = set(build.numbers), 0
    while todo:
        try:
            for number, report in _pool(build, sorted(todo), workers):
                todo.remove(number)
                lost = 0
                yield report
        except BrokenProcessPool as error:
            lost += 1
            if lost == LOST_IN_A_ROW:
                raise WorkerLost(
                    "workers die before they finish a shard; --resume goes on with what is stored"
                ) from error


def _pool(build: Build, numbers: Sequence[int], workers: int) -> Iterator[tuple[int, BuildReport]]:
    """Shards as they are finished. Raises BrokenProcessPool if a worker dies."""
    context = multiprocessing.get_context("spawn")
    ordinals, report_progress = context.Queue(), build.watch()
    for ordinal in range(workers):
        ordinals.put(ordinal)
    with ProcessPoolExecutor(
        workers, context, _start_worker, (build.workplace.device, ordinals)
    ) as pool:
        shards = {pool.submit(run_shard, *build.shard(number)): number for number in numbers}
        try:
            while shards:
                done, _ = wait(shards, POLL, FIRST_COMPLETED)
                for future in done:
                    yield shards.pop(future), future.result()
                report_progress()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _start_worker(device: str, ordinals: Any) -> None:
    """A local worker's start: a GPU of its own where there are."""
    if device == "cuda":
        torch.cuda.set_device(ordinals.get() % torch.cuda.device_count())


def on_ray(build: Build, workers: int, address: str | None = None) -> Iterator[BuildReport]:
    """Build over a Ray cluster; without an address, over one of `workers` started here.

    Ray runs a shard again whose worker died.

    Raises:
        UsageError: Ray is not installed.
        ClusterError: there is no cluster at the address.
        WorkerLost: a shard's workers died again and again.
    """
    try:
        import ray
    except ImportError as error:
        raise UsageError(
            "building on Ray needs it installed: pip install 'lorasmith[cluster]'"
        ) from error
    local: dict[str, Any] = {"num_cpus": workers, "include_dashboard": False}
    try:
        ray.init(address=address, log_to_driver=False, **({} if address else local))
    except ConnectionError as error:
        raise ClusterError(f"no Ray cluster answers at {address}") from error
    on_gpu = build.workplace.device != "cpu"
    gpus = min(1.0, max(1, torch.cuda.device_count()) / workers) if on_gpu else 0
    remote = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=LOST_IN_A_ROW)(run_shard)
    return _ray_reports(build, remote)


def _ray_reports(build: Build, remote: Any) -> Iterator[BuildReport]:
    """Shards as they are finished; leaves the cluster at the end."""
    import ray
    from ray.exceptions import RayTaskError, WorkerCrashedError

    report_progress = build.watch()
    try:
        shards = [remote.remote(*build.shard(n)) for n in build.numbers]
        while shards:
            done, shards = ray.wait(shards, timeout=POLL)
            yield from ray.get(done)
            report_progress()
    except RayTaskError as error:
        raise error.cause if isinstance(error.cause, LorasmithError) else error from error
    except WorkerCrashedError as error:
        raise WorkerLost(f"Ray lost a shard's workers {LOST_IN_A_ROW} times") from error
    finally:
        ray.shutdown()


def _builder(workplace: Workplace, plan: Plan) -> ShardBuilder:
    return ShardBuilder(LibraryFolder(workplace.library), plan, _base(workplace))


@functools.lru_cache(maxsize=1)
def _base(workplace: Workplace) -> BaseModel:
    if workplace.threads is not None:
        torch.set_num_threads(workplace.threads)
    device = workplace.device
    base = load_base(workplace.base, device=device, dtype=fast_dtype(device))
    if workplace.compiled:
        compile_layers(base.model)
    return base
