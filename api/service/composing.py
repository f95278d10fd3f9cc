"""Merging adapters: at once, or as a job where that takes seconds."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from api.errors import NotFound, Refused
from api.service.job_store import JobRow, Keep
from api.service.making import Created, examples_json, examples_of
from api.service.metrics import Metrics
from api.service.settings import Settings
from api.service.store import ADAPTER_ID, Store
from generator.engine import Engine
from generator.request import MAX_RANK
from generator.strategies.base import Chosen
from index.merge.compose import Composition, MergeRequest, compose_adapters
from index.merge.methods import METHODS
from index.merge.parents import Parents, parents_for, stated_base
from index.merge.weighted_sum import require_mergeable
from library.base.models import BaseReference, of_one_base
from library.errors import AdapterRefused, UnknownName, UsageError
from lorasmith.libraries import Library, load_library
from verification.run import QuickCheck

AT_ONCE = 32  # ranks of all parents together; with more, also the quick methods take seconds


class Composing:
    """Merges stored adapters and those of the library, and keeps what comes out.

    Args:
        settings: name the bases and the library.
        store: holds the adapters of callers.
        engine: gives the engine, once it is loaded.
        metrics: where the stages are measured.
    """

    def __init__(
        self, settings: Settings, store: Store, engine: Callable[[], Engine], metrics: Metrics
    ) -> None:
        self._settings, self._store, self._engine = settings, store, engine
        self._metrics = metrics

    def takes_long(self, owner: str | None, request: MergeRequest) -> bool:
        """Whether a merge is for a job; then what is wrong with it is raised here already.

        Raises NotFound; UsageError if the adapters are too large together, before any is read; and
        of a job all that `compose` raises before it merges.
        """
        library = load_library(self._settings.library)
        ranks = sum(self._rank(owner, library, name) for name in request.names)
        if ranks > MAX_RANK:
            raise UsageError(
                f"adapters: together they have rank {ranks}; at most {MAX_RANK} is merged"
            )
        method = METHODS[request.method]
        if not method.dense and method.examples is None and ranks <= AT_ONCE:
            return False
        adapters = self._parents(owner, request)[0].adapters
        require_mergeable(adapters, request.weights or [1.0] * len(adapters))
        return True

    def compose(self, owner: str, sees: str | None, request: MergeRequest) -> Created:
        """A merge, made and kept at once.

        Args:
            owner: whose it will be.
            sees: whose adapters may be merged; None for everybody's.
        Raises:
            NotFound, UnknownName, UsageError, LayoutMismatch, UnsupportedModel, Refused.
        """
        composition, check = self._merged(sees, request)
        files = composition.files
        record, new = self._store.put(owner, _summary(composition), files.files)
        return Created(record, new, check.milliseconds)

    def compose_by_job(self, sees: str | None, job: JobRow) -> Keep:
        """A merge that takes seconds."""
        composition, _ = self._merged(sees, merge_of(job.request["request"]))
        files = composition.files.files
        return lambda: self._store.put(job.owner, _summary(composition), files)[0]

    def _merged(self, owner: str | None, request: MergeRequest) -> tuple[Composition, QuickCheck]:
        parents, base = self._parents(owner, request)
        check, model = QuickCheck(base), self._engine().resources.model
        try:
            return compose_adapters(request, parents, load=lambda: model(base), check=check), check
        except AdapterRefused as error:  # by weights that nothing could bear
            raise Refused(str(error)) from error

    def _parents(self, owner: str | None, request: MergeRequest) -> tuple[Parents, BaseReference]:
        """The adapters to merge, and the base that they share."""
        library = load_library(self._settings.library)
        named = [(name, self._files(owner, library, name)) for name in request.names]
        base = self._base(*named[0])
        return parents_for(named, base), base

    def _base(self, name: str, files: dict[str, bytes]) -> BaseReference:
        """The configured base of an adapter. Raises UnknownName if it is not configured."""
        stated, described = stated_base(name, files), self._engine().resources.described
        for alias in self._settings.bases:
            base = self._settings.base(alias)
            if of_one_base(stated, described(base)):
                return base
        raise UnknownName(
            f"{name} is for '{stated['id']}', which is not among the base models of this "
            f"service: {', '.join(self._settings.bases)}"
        )

    def _rank(self, owner: str | None, library: Library, name: str) -> int:
        try:
            return self._store.get(owner, name)["rank"]
        except NotFound:
            if not _is_in(library, name):
                raise
        return library.catalogue.named(name)[0].rank

    def _files(self, owner: str | None, library: Library, name: str) -> dict[str, bytes]:
        """An adapter's files. Raises NotFound unless it is the owner's or the library's."""
        try:
            return self._store.files(owner, self._store.get(owner, name))
        except NotFound:
            if not _is_in(library, name):
                raise
        return library.files(name)


def merge_json(request: MergeRequest) -> dict[str, Any]:
    """A request for a merge as a job keeps it."""
    content = {**asdict(request), "names": list(request.names)}
    del content["predictor"]
    if request.examples is not None:
        content["examples"] = examples_json(request.examples)
    return content


def merge_of(content: Mapping[str, Any]) -> MergeRequest:
    """A request for a merge from what a job keeps."""
    rows = content["examples"]
    return MergeRequest(**{**content, "examples": None if rows is None else examples_of(rows)})


def _is_in(library: Library, name: str) -> bool:
    return ADAPTER_ID.fullmatch(name) is not None and bool(library.catalogue.named(name))


def _summary(composition: Composition) -> dict[str, Any]:
    """What clients are told of a merge, in the words that they know of other adapters."""
    made = composition.summary()
    del made["method"], made["weights"], made["parents"]
    report = composition.files.provenance["report"]
    return {**made, "chosen": _chosen(composition).to_dict(), "report": report}


def _chosen(composition: Composition) -> Chosen:
    ids, weights = composition.parents.ids, composition.weights
    parts = ids if weights is None else [f"{w:g} of {i}" for w, i in zip(weights, ids, strict=True)]
    return Chosen("compose", f"merged by {composition.request.method}: {', '.join(parts)}")
