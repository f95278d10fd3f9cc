"""From the names of adapters to a finished merge: `lorasmith compose`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pretrained
from api.parents import Gate, Parents, read_parents
from index.merge.lora_rar import MergePredictor, Predictor, load_predictor
from index.merge.lorahub import CANDIDATES, EXAMPLES
from index.merge.methods import DENSITY, METHODS, Merged, Mix, merge, require_suitable
from library.adapter import Adapter
from library.build.plan import rows_digest
from library.errors import UnknownName, UsageError
from library.peft.provenance import AdapterFiles, Provenance, finish
from library.peft.write import Profile, to_peft
from library.store.catalogue import Catalogue
from library.tasks.files import Example

NUMERICS = "cpu-f64-torch"


@dataclass(frozen=True)
class MergeRequest:
    """What is asked for. Validated on construction; raises UsageError, UnknownName.

    Attributes:
        names: of the adapters: folders, or ids or tasks of the library.
        weights: one each; None for equal ones, or where the method finds them.
        rank: of the result; None for the method's own.
        density: share of entries that ties and dare keep.
        seed: of dare's masks and lorahub's search.
    """

    names: Sequence[str]
    method: str
    weights: Sequence[float] | None = None
    rank: int | None = None
    density: float | None = None
    seed: int = 0
    profile: Profile = "portable"

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UnknownName(f"unknown method '{self.method}'; known: {', '.join(METHODS)}")
        require_suitable(self.method, self.weights, self.density)
        if self.weights is not None and len(self.weights) != len(self.names):
            raise UsageError(
                f"{len(self.names)} adapters need as many weights, not {len(self.weights)}"
            )
        if self.method == "lora-rar" and len(self.names) != 2:
            raise UsageError(f"lora-rar merges two adapters, not {len(self.names)}")
        if self.method == "lorahub" and len(self.names) > CANDIDATES:
            raise UsageError(f"lorahub takes at most {CANDIDATES} adapters")


@dataclass(frozen=True)
class Finished:
    """A finished merge, as `compose --json` shows it."""

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
        }


def compose_adapters(
    request: MergeRequest,
    catalogue: Catalogue,
    *,
    base: str | None = None,
    examples: Sequence[Example] = (),
    device: str = "cpu",
    predictor: Path | None = None,
    gate: Gate | None = None,
) -> Finished:
    """Merge adapters.

    Args:
        catalogue: of the library that ids and tasks are looked up in.
        base: of the adapters; None for what they say themselves.
        examples: for lorahub.
        device: where the base runs, for lorahub.
        predictor: checkpoint of lora-rar; the shipped one if None.
        gate: what each adapter has to pass.
    Raises:
        AdapterRefused, UsageError and its kinds, LayoutMismatch, AdapterFileError,
        BaseModelError, CheckpointError.
    """
    parents = read_parents(request.names, catalogue, base, gate)
    loaded = (
        load_predictor(predictor or pretrained.folder(MergePredictor.kind))
        if request.method == "lora-rar"
        else None
    )
    losses, numerics = None, NUMERICS
    if request.method == "lorahub":
        losses, numerics = _losses(parents, base, examples, device)
    mix = Mix(
        parents.adapters,
        request.weights,
        request.rank,
        request.density,
        request.seed,
        loaded,
        losses,
    )
    merged = merge(request.method, mix)
    provenance = _provenance(request, parents, merged, loaded, examples, numerics)
    files = to_peft(merged.adapter, base_name=parents.base["id"], profile=request.profile)
    return Finished(finish(files, provenance), merged.adapter, parents, request, merged.weights)


def require_examples(method: str, examples: Sequence[Example] | None) -> None:
    """Raise UsageError unless lorahub, and only it, is given a few examples."""
    if (examples is not None) != (method == "lorahub"):
        needs = "needs --examples" if method == "lorahub" else "takes no --examples"
        raise UsageError(f"{method} {needs}")
    if examples is not None and len(examples) > EXAMPLES:
        raise UsageError(f"lorahub takes at most {EXAMPLES} examples, not {len(examples)}")


def _losses(
    parents: Parents, base: str | None, examples: Sequence[Example], device: str
) -> tuple[Any, str]:
    """What the base says of weights, and the numerics that it adds."""
    from index.merge.mixture_loss import MixtureLoss
    from library.base.models import load_base, numerics, resolve_base

    loaded = load_base(resolve_base(base or parents.base["id"]), device=device)
    return MixtureLoss(loaded, parents.adapters, examples), numerics(loaded.model)


def _provenance(
    request: MergeRequest,
    parents: Parents,
    merged: Merged,
    predictor: Predictor | None,
    examples: Sequence[Example],
    numerics: str,
) -> Provenance:
    return Provenance(
        generator="compose",
        checkpoint=predictor.digest if predictor else None,
        description=None,
        examples=rows_digest(examples) if examples else None,
        seed=request.seed,
        parents=parents.ids,
        numerics=numerics,
        layout_digest=merged.adapter.layout.digest,
        base=parents.base,
        details={
            "method": request.method,
            "weights": merged.weights,
            "density": request.density or DENSITY.get(request.method),
            "rank": request.rank,
            "profile": request.profile,
        },
    )
