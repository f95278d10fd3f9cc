"""Methods that take adapters from a library: oracle, nearest, and what is merged of several.

Every merge is one of ΔW (index.merge), so imported and truncated adapters take part. Retrieval
never sees the evaluated task's own adapter (training.shelf). What takes part is decided by the
description alone, but for LoraHub, which is given the first rows of the task's train rows.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import torch

from index.encoder import DescriptionEncoder
from index.lorahub import CANDIDATES
from index.merge import Mix, merge
from index.merge_predictor import load_predictor
from index.mixture_loss import MixtureLoss
from index.recompress import recompressed
from library.adapter import Adapter
from library.base import BaseModel, BaseReference
from library.errors import TaskFileError, UsageError
from library.folder import LibraryFolder
from library.tasks import Task
from training.shelf import Shelf

NEIGHBOURS = 4  # SG-LoRA's K
TEMPERATURE = 0.05  # of the softmax over cosines
LARGEST = 8  # a sum is exact up to this many times the library's rank, then its best approximation


class LibraryMethods:
    """Adapters for tasks, by method.

    Args:
        library: what methods read, and
        oracles: where `oracle` looks for a task's own adapter.
        base: the evaluated base, which must be the libraries' own.
        encoder: of descriptions.
        predictor: checkpoint of lora-rar.
        seed: of LoraHub's search.
    Raises:
        LayoutMismatch: a library was made for another base.
    """

    def __init__(
        self,
        library: LibraryFolder,
        oracles: LibraryFolder,
        base: BaseReference,
        encoder: DescriptionEncoder,
        predictor: Path | None = None,
        seed: int = 0,
    ) -> None:
        self.library = Shelf(library, base, encoder)
        same = oracles.place == library.place
        self.oracles = self.library if same else Shelf(oracles, base, encoder)
        self._predictor, self._seed = predictor, seed

    def adapters(
        self, method: str, tasks: Sequence[Task], base: BaseModel | None = None
    ) -> list[Adapter | None]:
        """One adapter a task; None where the method has none.

        Args:
            base: the loaded base, for LoraHub.
        Raises UsageError if all are None.
        """
        found = self._maker(method, base)
        made = [found(task) for task in tasks]
        if all(adapter is None for adapter in made):
            place = (self.oracles if method == "oracle" else self.library).folder.place
            raise UsageError(f"{place} holds no adapter that {method} could use")
        return made

    def similarity(self, tasks: Sequence[Task]) -> dict[str, float]:
        """Cosine of each task's description with the nearest other one of the library."""
        return {
            task.name: self.library.similarities(task)[near[0]]
            for task in tasks
            if (near := self.library.nearest(task, 1))
        }

    def _maker(self, method: str, base: BaseModel | None) -> Callable[[Task], Adapter | None]:
        if method == "lora-rar":
            return self._lora_rar()
        if method.startswith("lorahub:"):
            count = int(method.removeprefix("lorahub:"))
            return lambda task: self._lorahub(task, count, base)
        return {
            "oracle": self.oracles.of_task,
            "soup": self._soup,
            "nearest": self._nearest,
            "top-k": lambda task: self._near("cat", task),
            "lego": lambda task: self._near("lego", task),
        }[method]

    def _soup(self, task: Task) -> Adapter | None:
        """The mean of all others.

        Of a large library the mean of all is made once, at twice the rank, and a task's own is
        taken out of it.
        """
        count, others = len(self.library.records), self.library.others(task)
        rank = self._rank(len(others))
        if rank is None:
            mix = Mix([self.library.adapter(i) for i in others])
            return merge("soup", mix).adapter if others else None
        if len(others) == count:
            return recompressed(self._everything, rank)
        own = [self.library.adapter(i) for i in range(count) if i not in others]
        weights = [count / len(others), *[-1 / len(others)] * len(own)]
        return merge("cat", Mix([self._everything, *own], weights, rank)).adapter

    @cached_property
    def _everything(self) -> Adapter:
        """The mean of a large library."""
        every = [self.library.adapter(i) for i in range(len(self.library.records))]
        return merge("soup", Mix(every, rank=2 * LARGEST * self.library.plan.layout.rank)).adapter

    def _nearest(self, task: Task) -> Adapter | None:
        near = self.library.nearest(task, 1)
        return self.library.adapter(near[0]) if near else None

    def _near(self, method: str, task: Task) -> Adapter | None:
        """The nearest, by softmax of the cosines (SG-LoRA, arXiv 2509.10535, sparse aggregator)."""
        near = self.library.nearest(task, NEIGHBOURS)
        if not near:
            return None
        similarities = self.library.similarities(task)
        cosines = torch.tensor([similarities[i] for i in near], dtype=torch.float64)
        weights = (cosines / TEMPERATURE).softmax(0).tolist()
        return merge(method, Mix([self.library.adapter(i) for i in near], weights)).adapter

    def _lora_rar(self) -> Callable[[Task], Adapter | None]:
        """The two nearest, by the predictor's weights."""
        if self._predictor is None:
            raise UsageError("lora-rar needs a predictor")
        predictor = load_predictor(self._predictor)

        def made(task: Task) -> Adapter | None:
            pair = self.library.nearest(task, 2)
            if len(pair) < 2:
                return None
            mix = Mix([self.library.adapter(i) for i in pair], predictor=predictor)
            return merge("lora-rar", mix).adapter

        return made

    def _lorahub(self, task: Task, count: int, base: BaseModel | None) -> Adapter | None:
        """The 20 nearest, by weights that suit the first `count` train rows."""
        if base is None:
            raise UsageError("lorahub needs a loaded base")
        near = self.library.nearest(task, CANDIDATES)
        if not near:
            return None
        adapters = [self.library.adapter(i) for i in near]
        try:
            losses = MixtureLoss(base, adapters, task.train[:count])
        except TaskFileError:  # none of these rows is short enough
            return None
        mix = Mix(adapters, rank=self._rank(len(near)), seed=self._seed, losses=losses)
        return merge("lorahub", mix).adapter

    def _rank(self, count: int) -> int | None:
        """None, for an exact sum, while that is of a rank that can still be decoded quickly."""
        return None if count <= LARGEST else LARGEST * self.library.plan.layout.rank
