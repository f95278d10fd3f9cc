"""Methods that merge or look up a library's adapters for evaluation.

Every merge is one of ΔW (index.merge.methods), so imported and truncated adapters take part.
Retrieval never sees the evaluated task's own adapter: on a task of the library it is measured as
if that task were new. What takes part is decided by the description alone, but for LoraHub, which
is given the first rows of the task's train rows.
"""

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path

from index.merge.lora_rar import load_predictor
from index.merge.lorahub import CANDIDATES
from index.merge.methods import Mix, merge
from index.search.retriever import NEIGHBOURS, Neighbour, Retriever, softmax_weights
from library.adapter import Adapter
from library.base.example_loss import MixtureLoss
from library.base.models import BaseModel
from library.errors import TaskFileError, UsageError
from library.store.catalogue import Record
from library.tasks.files import Task

MAX_RANK_FACTOR = 8  # times the library's rank a sum is exact; above, its best approximation


class LibraryMethods:
    """Adapters for tasks, by method.

    Args:
        library: what methods read, and
        oracles: where `oracle` looks for a task's own adapter.
        predictor: checkpoint of lora-rar.
        seed: of LoraHub's search.
    """

    def __init__(
        self, library: Retriever, oracles: Retriever, predictor: Path | None = None, seed: int = 0
    ) -> None:
        self.library, self.oracles = library, oracles
        self._predictor, self._seed = predictor, seed
        self._oracle_ids = {record["task"]: record["id"] for record in oracles.records}

    def adapters(
        self, method: str, tasks: Sequence[Task], base: BaseModel | None = None
    ) -> list[Adapter | None]:
        """One adapter a task; None where the method has none.

        Args:
            base: the loaded base, for LoraHub.
        Raises UsageError if all are None.
        """
        adapter_of = self._maker(method, base)
        adapters = [adapter_of(task) for task in tasks]
        if all(adapter is None for adapter in adapters):
            url = (self.oracles if method == "oracle" else self.library).folder.location
            raise UsageError(f"{url} holds no adapter that {method} could use")
        return adapters

    def _maker(self, method: str, base: BaseModel | None) -> Callable[[Task], Adapter | None]:
        if method == "lora-rar":
            return self._lora_rar()
        if method.startswith("lorahub:"):
            count = int(method.removeprefix("lorahub:"))
            return lambda task: self._lorahub(task, count, base)
        return {
            "oracle": self._oracle,
            "soup": self._soup,
            "top-k": lambda task: self._merged_nearest("cat", task),
            "lego": lambda task: self._merged_nearest("lego", task),
        }[method]

    def _oracle(self, task: Task) -> Adapter | None:
        identity = self._oracle_ids.get(task.name)
        return self.oracles.adapter(identity) if identity else None

    def _soup(self, task: Task) -> Adapter | None:
        """The mean of all others.

        Of a large library the mean of all is made once, at twice the rank, and a task's own is
        taken out of it.
        """
        records = self.library.records
        others = [r["id"] for r in records if _other(task, r)]
        rank = self._rank(len(others))
        if rank is None:
            return merge("soup", Mix(self._read(others))).adapter if others else None
        if len(others) == len(records):
            return self._mean_of_all
        of_task = self._read([r["id"] for r in records if not _other(task, r)])
        weights = [len(records) / len(others), *[-1 / len(others)] * len(of_task)]
        return merge("cat", Mix([self._everything, *of_task], weights, rank)).adapter

    @cached_property
    def _everything(self) -> Adapter:
        """The mean of a large library."""
        adapters = self._read([record["id"] for record in self.library.records])
        return merge("soup", Mix(adapters, rank=2 * self._max_rank)).adapter

    @cached_property
    def _mean_of_all(self) -> Adapter:
        """The mean of a large library at the rank that is decoded, for tasks outside it."""
        return self._everything.recompressed(self._max_rank)

    def _merged_nearest(self, method: str, task: Task) -> Adapter | None:
        """The nearest, by softmax of the cosines (SG-LoRA, arXiv 2509.10535, sparse aggregator)."""
        neighbours = nearest(self.library, task, NEIGHBOURS)
        if not neighbours:
            return None
        mix = Mix(self._read([n.id for n in neighbours]), softmax_weights(neighbours))
        return merge(method, mix).adapter

    def _lora_rar(self) -> Callable[[Task], Adapter | None]:
        """The two nearest, by the predictor's weights."""
        if self._predictor is None:
            raise UsageError("lora-rar needs a predictor")
        predictor = load_predictor(self._predictor)

        def merged(task: Task) -> Adapter | None:
            pair = nearest(self.library, task, 2)
            if len(pair) < 2:
                return None
            mix = Mix(self._read([n.id for n in pair]), predictor=predictor)
            return merge("lora-rar", mix).adapter

        return merged

    def _lorahub(self, task: Task, count: int, base: BaseModel | None) -> Adapter | None:
        """The 20 nearest, by weights that suit the first `count` train rows."""
        if base is None:
            raise UsageError("lorahub needs a loaded base")
        neighbours = nearest(self.library, task, CANDIDATES)
        if not neighbours:
            return None
        adapters = self._read([n.id for n in neighbours])
        try:
            losses = MixtureLoss(base, adapters, task.train[:count])
        except TaskFileError:  # none of these rows is short enough
            return None
        mix = Mix(adapters, rank=self._rank(len(adapters)), seed=self._seed, losses=losses)
        return merge("lorahub", mix).adapter

    def _rank(self, count: int) -> int | None:
        """None, for an exact sum, while that is of a rank that can still be decoded quickly."""
        return None if count <= MAX_RANK_FACTOR else self._max_rank

    @property
    def _max_rank(self) -> int:
        return MAX_RANK_FACTOR * self.library.plan.layout.rank

    def _read(self, ids: Sequence[str]) -> list[Adapter]:
        return [self.library.adapter(identity) for identity in ids]


def nearest(retriever: Retriever, task: Task, count: int) -> list[Neighbour]:
    """The nearest adapters of other tasks, by the task's definition."""
    return retriever.nearest(retriever.embed(task.definition), count, partial(_other, task))


def similarity(retriever: Retriever, tasks: Sequence[Task]) -> dict[str, float]:
    """Cosine of each task's description with the nearest other one of the library."""
    hits = {task.name: nearest(retriever, task, 1) for task in tasks}
    return {name: neighbours[0].similarity for name, neighbours in hits.items() if neighbours}


def _other(task: Task, record: Record) -> bool:
    return record["task"] != task.name
