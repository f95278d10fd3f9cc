"""One adapter that a user already has, or a fresh one, trained further: `lorasmith refine`."""

from dataclasses import dataclass
from typing import Any

from generator.expected import expectation_after
from generator.refine.refine import Refined, Refiner, Start
from generator.refine.teacher import Teacher
from generator.request import Request
from generator.strategies.fresh import fresh_start
from index.merge.parents import Parents
from library.base.folder_readme import folder_readme
from library.base.models import BaseReference, described
from library.base.usage import BARE
from library.peft.provenance import AdapterFiles, Check, Provenance, finish
from library.peft.write import as_written, to_peft
from library.progress import Progress, no_progress
from library.stages import Stages, untimed


@dataclass(frozen=True)
class RefinedAdapter:
    """A refined adapter with its files.

    Attributes:
        start: id of the adapter that it goes on from; None for a fresh one.
    """

    files: AdapterFiles
    refined: Refined
    start: str | None

    def summary(self) -> dict[str, Any]:
        """What `refine --json` prints of it."""
        provenance = self.files.provenance
        return {
            "id": self.files.id,
            "sha256": self.files.sha256,
            "generator": "refine",
            "start": self.start,
            "base_model": provenance["base"]["id"],
            "layout_digest": provenance["layout_digest"],
            "rank": self.refined.adapter.layout.rank,
            "seed": provenance["seed"],
            "usage": provenance["usage"],
            "expected": provenance["expected"],
            "refined": self.refined.to_dict(),
            "report": provenance.get("report"),
        }


def refine_adapter(
    base: BaseReference,
    request: Request,
    start: Parents | None = None,
    *,
    refiner: Refiner,
    teacher: Teacher | None = None,
    check: Check | None = None,
    progress: Progress = no_progress,
    stages: Stages = untimed,
) -> RefinedAdapter:
    """An adapter after training on a request's examples, on answers to its inputs, or on both.

    Args:
        base: the base model.
        request: its examples, inputs, steps, budget, seed and profile.
        start: the adapter to go on from; None for a fresh one on the base's default modules.
        refiner: does the training.
        teacher: answers the inputs, if there are any.
        check: see library.peft.provenance.finish.
        stages: measures what comes after training.
    Raises:
        UsageError: examples that nothing can be trained with.
        UnsupportedModel: there is no default for the base's modules.
        AdapterRefused: by the check.
    """
    # 1. The start, and the prompt that it is for.
    adapter = start.adapters[0] if start else fresh_start(base, request.seed)
    # Without the examples that it shows: training would copy their answers, unseen by the weights.
    usage = start.plain_usages[0] if start and not request.inputs else BARE
    saw = (
        start is not None
        and start.usages == start.plain_usages
        and start.examples[0] == request.examples_digest
    )
    instructed = start is not None and usage.mode == "prompted"
    # 2. Training.
    (refined,) = refiner(
        base,
        [
            Start(
                adapter,
                request.examples,
                usage,
                saw_examples=saw,
                instructed=instructed,
                inputs=request.inputs,
                teacher=teacher,
            )
        ],
        steps=request.refine,
        budget=request.budget,
        seed=request.seed,
        progress=progress,
    )
    # 3. The files.
    about = start.base if start else described(base)
    # What a start has been trained on is not known, so its held-out answers may be remembered.
    expected = None if start else expectation_after(refined, about["sha256"])
    provenance = Provenance(
        generator="refine",
        checkpoint=None,
        description=start.descriptions[0] if start else None,
        examples=request.examples_digest,
        seed=request.seed,
        parents=start.ids if start else None,
        numerics=refined.trained_in,
        layout_digest=as_written(refined.adapter, request.profile).layout.digest,
        base=about,
        usage=usage.to_dict(),
        expected=None if expected is None else expected.to_dict(),
        details={"refine": refined.to_dict(), "profile": request.profile},
    )
    with stages("serialise"):
        files = to_peft(refined.adapter, base_name=about["id"], profile=request.profile)
        finished = finish(files, provenance, check, folder_readme, stages)
    return RefinedAdapter(finished, refined, start.ids[0] if start else None)
