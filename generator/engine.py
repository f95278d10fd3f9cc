"""The engine: every strategy over one set of loaded resources; the one door to an adapter.

`generate` answers a request by itself, so its bytes do not depend on what else is asked for.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pretrained
from generator.models.base import Generator, reads_examples, registered
from generator.package import Packaged, package
from generator.refine.refine import Refiner
from generator.request import Query, Request
from generator.resources import Resources
from generator.strategies.auto import Auto
from generator.strategies.base import Proposal, Strategy
from generator.strategies.fresh import Fresh
from generator.strategies.generated import Generated
from generator.strategies.input_writer import InputWriter, shipped_input_writer
from generator.strategies.multi_task import MultiTask, shipped_multi_tasks
from generator.strategies.refined import refined_proposals
from generator.strategies.retrieved import Compose, Nearest
from index.encoders.texts import stored_encoder
from library.base.models import BaseModel, BaseReference
from library.checkpoint import Checkpoint, load_checkpoint
from library.errors import CheckpointError, UnknownName, UsageError
from library.progress import Progress, no_progress, share_of
from library.stages import Stages, untimed
from library.store.open import open_library

DEFAULT_STRATEGY = Auto.name
Need = Literal["description", "examples", "library", "base"]
_NEEDED_FOR: dict[Need, set[str]] = {  # what gives a generator the parts of its condition
    "description": {"description", "task"},
    "examples": {"examples"},
    "library": {"experts"},
    "base": {"task", "base"},
}
_NEEDS: dict[type[Strategy], tuple[Need, ...]] = {  # of the strategies that are no generators
    Auto: (),
    MultiTask: ("description",),
    Nearest: ("description", "library"),
    Compose: ("description", "library"),
    Fresh: ("examples",),
}
_OTHERS = {strategy.name: strategy for strategy in _NEEDS}


class Engine:
    """Strategies by name.

    Args:
        checkpoints: loaded generators.
        resources: encoders, library, base models; no library by default.
        multi_task: folders of multi-task adapters, each for its base; by default the shipped ones.

    Attributes:
        teachers: the multi-task adapters, which answer inputs that come without answers.
        writers: the adapter that writes inputs where there are none.
    """

    def __init__(
        self,
        checkpoints: Sequence[Checkpoint[Generator]],
        resources: Resources | None = None,
        multi_task: Sequence[Path] = (),
    ) -> None:
        self.resources = resources or Resources()
        self.teachers = MultiTask(*(multi_task or shipped_multi_tasks()))
        self.writers = InputWriter(shipped_input_writer())
        self.generated = {c.kind: Generated(c, self.resources, self.teachers) for c in checkpoints}
        nearest, compose, fresh = Nearest(self.resources), Compose(self.resources), Fresh()
        auto = Auto([*self.generated.values()], nearest, compose, self.teachers, fresh)
        self.strategies: dict[str, Strategy] = {
            s.name: s
            for s in (auto, self.teachers, *self.generated.values(), nearest, compose, fresh)
        }

    def strategy(self, name: str, *, examples: bool = False) -> Strategy:
        """A strategy by name.

        Raises UnknownName; UsageError if it is a generator without a checkpoint, or if there are
        examples and it, or that checkpoint, cannot use them.
        """
        require_strategy(name, examples=examples)
        if name not in self.strategies:
            raise UsageError(f"there is no checkpoint of {name} to generate with")
        strategy = self.strategies[name]
        if examples and not strategy.uses_examples:
            raise UsageError(_untrained_examples(name))
        return strategy

    def needs(self, name: str) -> list[Need]:
        """What a strategy of this name does not do without, as `needs_of` says it."""
        loaded = self.generated.get(name)
        if loaded is None:
            return needs_of(name)
        needs = needs_of(name, loaded.module)
        if loaded.read_by_base and "base" not in needs:
            needs.append("base")
        return needs

    def uses_examples(self, name: str) -> bool:
        """Whether a strategy of this name can use examples, as `uses_examples` says it."""
        strategy = self.strategies.get(name)
        return uses_examples(name) if strategy is None else strategy.uses_examples

    def propose(
        self,
        name: str,
        request: Request,
        base: BaseReference,
        *,
        without: str = "",
        progress: Progress = no_progress,
    ) -> Proposal:
        """An adapter for a request, before it is packaged; trained on the examples, if any.

        Args:
            without: a task whose own adapters are left out of retrieval.
            progress: of the training.
        Raises:
            UnknownName: there is no such strategy.
            UsageError: it cannot use examples, or needs what there is none of.
            LayoutMismatch, UnsupportedModel: checkpoint or library do not fit the base.
        """
        query = Query(request, base, self.resources, without)
        return self._propose(name, query, progress, None)

    def start(self, name: str, query: Query) -> Proposal:
        """What a strategy proposes before any training. Raises as `propose` does."""
        request = query.request
        if request.taught:  # without a teacher there is no training
            self.teachers.teacher(request.description, query.base)
        if request.write_inputs:
            self.writers.writer(request.description, query.base, request.write_inputs)
        untrained = bool(request.examples) and not request.refines
        strategy = self.strategy(name, examples=untrained)
        with query.stages("generate"):
            return strategy.propose(query)

    def generate(
        self,
        name: str,
        request: Request,
        base: BaseReference,
        progress: Progress = no_progress,
        refiner: Refiner | None = None,
        stages: Stages = untimed,
    ) -> Packaged:
        """A finished adapter. Raises as `propose` does, and AdapterRefused.

        Args:
            refiner: does the training; by default this process.
            stages: measures what comes before and after training.
        """
        query = Query(request, base, self.resources, stages=stages)
        return package(query, self._propose(name, query, progress, refiner), name)

    def samples(
        self,
        name: str,
        requests: Sequence[Request],
        base: BaseReference,
        progress: Progress = no_progress,
    ) -> list[Packaged]:
        """Finished adapters for requests that differ in their seeds alone; see generator.samples.

        Each has the bytes that `generate` gives its request, and is trained by itself; what the
        first looks up and computes before the draw serves them all.

        Args:
            progress: of the training of all.
        Raises as `generate` does.
        """
        query, finished = Query(requests[0], base, self.resources), []
        for number, request in enumerate(requests):
            query = query.reseeded(request.seed)
            part = share_of(progress, number, len(requests))
            finished.append(package(query, self._propose(name, query, part, None), name))
        return finished

    def _propose(
        self, name: str, query: Query, progress: Progress, refiner: Refiner | None
    ) -> Proposal:
        proposal = self.start(name, query)
        if not query.request.refines:
            return proposal
        (refined,) = self.refined([query], [proposal], progress, refiner)
        return refined

    def refined(
        self,
        queries: Sequence[Query],
        starts: Sequence[Proposal],
        progress: Progress = no_progress,
        refiner: Refiner | None = None,
    ) -> list[Proposal]:
        """Proposals after training, many at once; see generator.strategies.refined."""
        return refined_proposals(
            queries, starts, progress, refiner, teachers=self.teachers, writers=self.writers
        )


def strategy_names() -> list[str]:
    """Names that requests may use: the default, every registered generator, and the others."""
    return [Auto.name, MultiTask.name, *registered(), Nearest.name, Compose.name, Fresh.name]


def takes_library(name: str) -> bool:
    """Whether a strategy of this name takes adapters from a library."""
    return name == Auto.name or (name in strategy_names() and "library" in needs_of(name))


def uses_examples(name: str) -> bool:
    """Whether a strategy of this name can use examples without training on them.

    Of a generator: whether one of its checkpoints can.
    """
    if name in registered():
        return reads_examples(registered()[name])
    return name in _OTHERS and _OTHERS[name].uses_examples


def needs_of(name: str, loaded: Generator | None = None) -> list[Need]:
    """What a strategy of this name does not do without.

    "base" is the loaded base model. Nothing for `auto`, which chooses by what there is, and for a
    generator that takes a description or examples.

    Args:
        loaded: the generator, as some read more than others of their name.
    """
    if name in _OTHERS:
        return list(_NEEDS[_OTHERS[name]])
    needs = (loaded or registered()[name]).needs
    return [word for word, parts in _NEEDED_FOR.items() if parts & needs]


def draws(name: str) -> bool:
    """Whether a strategy of this name draws, so that another seed gives another adapter."""
    return name in registered() and registered()[name].draws


def require_strategy(name: str, *, examples: bool = False) -> None:
    """Raise UnknownName, or UsageError if there are examples and it cannot use them."""
    if name not in strategy_names():
        raise UnknownName(f"unknown generator '{name}'; known: {', '.join(strategy_names())}")
    if examples and not uses_examples(name):
        raise UsageError(_untrained_examples(name))


def _untrained_examples(name: str) -> str:
    return f"{name} cannot use examples without training on them: leave out refine 0"


def shipped_library() -> str | None:
    """The sample library, if this installation has it."""
    return str(pretrained.LIBRARY) if pretrained.LIBRARY.is_dir() else None


def open_engine(
    checkpoints: Sequence[Checkpoint[Generator]] = (),
    library: str | None = None,
    device: str = "cpu",
    *,
    required: str | None = None,
    load: Callable[[BaseReference], BaseModel] | None = None,
    multi_task: Sequence[Path] = (),
) -> Engine:
    """An engine over checkpoints, the shipped ones by default, and a library if there is one.

    Args:
        checkpoints: loaded generators, in place of the shipped ones of their names.
        library: folder or URL.
        required: a generator that there has to be a checkpoint of.
        load: how base models are loaded.
        multi_task: folders of multi-task adapters, in place of the shipped ones.
    Raises:
        MissingPath: there is no such library.
        CheckpointError: a shipped checkpoint cannot be used, or there is none of `required`.
    """
    replacing, loaded = {checkpoint.kind: checkpoint for checkpoint in checkpoints}, []
    for name in registered():
        folder = pretrained.folder(name)
        if name in replacing:
            loaded.append(replacing[name])
        elif folder.is_dir():
            loaded.append(read_generator(folder))
        elif name == required:
            raise CheckpointError(f"this installation has no checkpoint of {name}")
    opened = open_library(library) if library else None
    return Engine(loaded, Resources(opened, device=device, load=load), multi_task)


def read_generator(folder: Path) -> Checkpoint[Generator]:
    """A generator's checkpoint; its encoder is a name or, of base states, the folder within.

    Raises MissingPath, CheckpointError.
    """
    registered()  # so that every kind is known
    stored = load_checkpoint(folder, Generator)
    info = replace(stored.info, encoder=stored_encoder(folder, stored.info.encoder))
    return replace(stored, info=info)


def read_generators(folders: Mapping[str, Path]) -> list[Checkpoint[Generator]]:
    """Checkpoints by the names of their generators.

    Raises UnknownName; MissingPath; CheckpointError, also for a checkpoint of another generator.
    """
    loaded = []
    for name, folder in folders.items():
        require_strategy(name)
        loaded.append(read_generator(folder))
        if loaded[-1].kind != name:
            raise CheckpointError(f"{folder} is a checkpoint of {loaded[-1].kind}, not {name}")
    return loaded
