"""Making adapters and keeping them: at once, or by training as a job."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from api.service.hooks import require_configured
from api.service.job_store import JobRow, Keep
from api.service.jobs import Share
from api.service.metrics import Metrics
from api.service.settings import Settings
from api.service.store import Store, StoredRecord
from generator.engine import Engine
from generator.package import Packaged
from generator.refine.process import refine_apart
from generator.refine.teacher import Teacher
from generator.refined_adapter import refine_adapter
from generator.request import Query, Request
from generator.strategies.base import Chosen
from index.merge.parents import Parents, parents_for
from library.base.models import BaseReference
from library.progress import Progress
from library.tasks.files import Example
from verification.run import QuickCheck


@dataclass(frozen=True)
class Created:
    """The answer to a request for an adapter.

    Attributes:
        record: the stored adapter's record.
        new: whether it was not stored before.
        milliseconds: what each hook took; nothing if it was stored before.
    """

    record: StoredRecord
    new: bool
    milliseconds: dict[str, float]


class Making:
    """Makes adapters with an engine and keeps them in a store.

    Args:
        settings: name the bases.
        store: where they are kept.
        engine: gives the engine, once it is loaded.
        metrics: where the stages are measured.
    """

    def __init__(
        self, settings: Settings, store: Store, engine: Callable[[], Engine], metrics: Metrics
    ) -> None:
        self._settings, self._store, self._engine = settings, store, engine
        self._metrics = metrics

    def library_changes(self) -> int:
        """How often the library has changed since the start, as far as requests have seen it."""
        return self._engine().resources.follow()

    def _following(self) -> Engine:
        """The engine, once it has followed its library."""
        self.library_changes()
        return self._engine()

    def generate(self, name: str, request: Request, base: BaseReference) -> Packaged:
        """An adapter that needs no training, and is kept nowhere yet."""
        stages = self._metrics.stages("requests")
        return self._following().generate(name, request, base, stages=stages)

    def keep(self, owner: str, adapter: Packaged) -> Created:
        """What a client is told of an adapter, which is stored now."""
        record, new = self._store.put(owner, adapter.summary, adapter.files.files)
        return Created(record, new, adapter.milliseconds)

    def require_start(self, name: str, request: Request, base: BaseReference) -> None:
        """Raise whatever is known to be wrong with a request before its training."""
        engine = self._following()
        stages = self._metrics.stages("requests")
        engine.start(name, Query(request, base, engine.resources, stages=stages))

    def create_by_job(self, job: JobRow, share: Share) -> Keep:
        """An adapter that is trained on its request's examples."""
        asked = job.request
        base = self._settings.base(asked["base"])
        request, progress = request_of(asked["request"]), _shares(share)
        stages = self._metrics.stages("jobs")
        adapter = self._following().generate(
            asked["generator"], request, base, progress, refine_apart, stages
        )
        return lambda: self._store.put(job.owner, adapter.summary, adapter.files.files)[0]

    def start(self, owner: str | None, identity: str) -> tuple[Parents, BaseReference]:
        """An adapter of `owner`'s to train further, and its base.

        Raises NotFound, AdapterFileError; UnknownName if its base is not configured;
        LayoutMismatch if that is not what it was made for.
        """
        record = self._store.get(owner, identity)
        base = require_configured(self._settings, record["base_model"])
        return parents_for([(identity, self._store.files(owner, record))], base), base

    def require_refinable(self, owner: str | None, identity: str, request: Request) -> None:
        """Raise whatever is known to be wrong with a request before the training of an adapter.

        As `start` does; UsageError and LayoutMismatch where nothing can answer its inputs.
        """
        self._teacher(request, *self.start(owner, identity))

    def _teacher(self, request: Request, start: Parents, base: BaseReference) -> Teacher | None:
        """Who answers a request's inputs; None if there are none."""
        if not request.inputs:
            return None
        return self._engine().teachers.teacher(start.descriptions[0], base)

    def refine_by_job(self, owner: str | None, job: JobRow, share: Share) -> Keep:
        """An adapter of `owner`'s after training on examples or inputs, as another adapter."""
        identity = job.request["adapter"]
        start, base = self.start(owner, identity)
        request = request_of(job.request["request"])
        refined = refine_adapter(
            base,
            request,
            start,
            refiner=refine_apart,
            teacher=self._teacher(request, start, base),
            check=QuickCheck(base),
            progress=_shares(share),
            stages=self._metrics.stages("jobs"),
        )
        given = [("examples", request.examples), ("inputs", request.inputs)]
        rows = " and ".join(name for name, rows in given if rows)
        chosen = Chosen("refine", f"trained further on {rows}, from {identity}").to_dict()
        summary = {**refined.summary(), "chosen": chosen}
        return lambda: self._store.put(job.owner, summary, refined.files.files)[0]


def examples_json(examples: Sequence[Example]) -> list[dict[str, str]]:
    """Examples as a job keeps them."""
    return [{"input": example.input, "output": example.output} for example in examples]


def examples_of(rows: Sequence[Mapping[str, str]]) -> list[Example]:
    """Examples from what a job keeps."""
    return [Example.pair(row["input"], row["output"]) for row in rows]


def request_json(request: Request) -> dict[str, Any]:
    """A request as a job keeps it."""
    return {**asdict(request), "examples": examples_json(request.examples)}


def request_of(content: Mapping[str, Any]) -> Request:
    """A request from what a job keeps."""
    examples = tuple(examples_of(content["examples"]))
    inputs = tuple(content.get("inputs", ()))  # jobs from before there were inputs have none
    return Request(**{**content, "examples": examples, "inputs": inputs})


def _shares(share: Share) -> Progress:
    """Steps done, and of how many, as the share of a job."""
    return lambda done, total: share(done / total)
