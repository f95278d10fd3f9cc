"""From adapters to the files of their merge, for `lorasmith compose` and `/v1/adapters/compose`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pretrained
from index.merge.lora_rar import MergePredictor, Predictor, load_predictor
from index.merge.lorahub import Losses
from index.merge.methods import METHODS, Merged, Mix, merge, require_merge_inputs, require_suitable
from index.merge.parents import Parents
from library.adapter import Adapter
from library.base.folder_readme import folder_readme
from library.base.models import BaseModel
from library.base.usage import BARE, Usage
from library.build.plan import rows_digest
from library.peft.provenance import AdapterFiles, Check, Provenance, finish
from library.peft.write import Profile, as_written, to_peft
from library.tasks.files import Example

NUMERICS = "cpu-f64-torch"


@dataclass(frozen=True)
class MergeRequest:
    """Adapters to merge, and how. Validated on construction; raises UsageError, UnknownName.

    Attributes:
        names: of the adapters: folders, or ids or tasks of the library.
        weights: one each; None for equal ones, or where the method finds them.
        rank: of the result; None for the method's own.
        density: share of entries that ties and dare keep.
        seed: of dare's masks and lorahub's search.
        examples: for lorahub.
        predictor: checkpoint of lora-rar; the shipped one if None.
    """

    names: Sequence[str]
    method: str
    weights: Sequence[float] | None = None
    rank: int | None = None
    density: float | None = None
    seed: int = 0
    profile: Profile = "portable"
    examples: Sequence[Example] | None = None
    predictor: Path | None = None

    def __post_init__(self) -> None:
        require_suitable(self.method, len(self.names), self.weights, self.density)
        examples = None if self.examples is None else len(self.examples)
        require_merge_inputs(self.method, examples, predictor=self.predictor is not None)


@dataclass(frozen=True)
class Composition:
    """A merge with its files, as `compose --json` shows it."""

    files: AdapterFiles
    adapter: Adapter
    parents: Parents
    request: MergeRequest
    weights: list[float] | None

    def summary(self) -> dict[str, Any]:
        return {
            "id": self.files.id,
            "sha256": self.files.sha256,
            "generator": "compose",
            "method": self.request.method,
            "weights": self.weights,
            "parents": self.parents.ids,
            "base_model": self.parents.base["id"],
            "layout_digest": self.adapter.layout.digest,
            "rank": self.adapter.layout.rank,
            "seed": self.request.seed,
            "usage": self.files.provenance["usage"],
        }


def compose_adapters(
    request: MergeRequest,
    parents: Parents,
    *,
    load: Callable[[], BaseModel],
    check: Check | None = None,
) -> Composition:
    """Merge adapters.

    Args:
        parents: one for each name of the request.
        load: gives their base, for examples.
        check: of the result; see library.peft.provenance.finish.
    Raises:
        AdapterRefused, UsageError and its kinds, LayoutMismatch, BaseModelError, CheckpointError.
    """
    # 1. What the method needs beside the adapters.
    method = METHODS[request.method]
    predictor = None
    if method.predictor:
        predictor = load_predictor(request.predictor or pretrained.folder(MergePredictor.kind))
    losses, numerics = None, NUMERICS
    if request.examples is not None:
        losses, numerics = _losses(parents, load(), request.examples)
    # 2. Merge.
    options = (request.weights, request.rank, request.density, request.seed)
    merged = merge(request.method, Mix(parents.adapters, *options, predictor, losses))
    merged = replace(merged, adapter=as_written(merged.adapter, request.profile))
    # 3. Write.
    provenance = _provenance(request, parents, merged, predictor, numerics)
    files = to_peft(merged.adapter, base_name=parents.base["id"], profile=request.profile)
    finished = finish(files, provenance, check, folder_readme)
    return Composition(finished, merged.adapter, parents, request, merged.weights)


def _losses(parents: Parents, model: BaseModel, examples: Sequence[Example]) -> tuple[Losses, str]:
    """The losses of weights on the examples, and the numerics of the base that computes them."""
    from library.base.example_loss import MixtureLoss
    from library.base.models import numerics

    return MixtureLoss(model, parents.adapters, examples), numerics(model.model)


def _usage(parents: Parents) -> Usage:
    """The prompt that all parents were made for, but for examples in it; else the input alone."""
    for usages in (parents.usages, parents.plain_usages):
        if len({*usages}) == 1:
            return usages[0]
    return BARE


def _provenance(
    request: MergeRequest,
    parents: Parents,
    merged: Merged,
    predictor: Predictor | None,
    numerics: str,
) -> Provenance:
    return Provenance(
        generator="compose",
        checkpoint=predictor.digest if predictor else None,
        description=None,
        examples=rows_digest(request.examples) if request.examples else None,
        seed=request.seed,
        parents=parents.ids,
        numerics=numerics,
        layout_digest=merged.adapter.layout.digest,
        base=parents.base,
        usage=_usage(parents).to_dict(),
        details={
            "method": request.method,
            "weights": merged.weights,
            "density": request.density or METHODS[request.method].density,
            "rank": request.rank,
            "profile": request.profile,
        },
    )
