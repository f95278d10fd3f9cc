"""One adapter trained further on a few examples, or trained on them from nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from generator.refine.training import Refinement, RefineSettings, example_rows, refine_adapters
from generator.request import MAX_EXAMPLES, MAX_SEED
from index.merge.parents import Parents
from library.adapter import Adapter
from library.base.models import BaseModel, described, load_config, numerics
from library.build.plan import rows_digest
from library.errors import UsageError
from library.layout import layout_of
from library.peft.provenance import AdapterFiles, Check, Provenance, finish
from library.peft.write import Profile, to_peft
from library.progress import Progress, no_progress
from library.tasks.files import Example

RANK = 8  # of an adapter that starts from nothing
MAX_STEPS = 2000
STEPS = 30  # docs/results/refine-settings.json: for up to 16 examples half is worse, more no better


@dataclass(frozen=True)
class Refined:
    """A refined adapter with its files.

    Attributes:
        steps: steps of training.
        used: examples that it was trained on; longer ones are left out.
        start: id of the adapter that it goes on from; None for a fresh one.
    """

    files: AdapterFiles
    adapter: Adapter
    steps: int
    used: int
    start: str | None
    base: dict[str, Any]
    seed: int

    def summary(self) -> dict[str, Any]:
        """What `refine --json` prints of it."""
        return {
            "id": self.files.id,
            "sha256": self.files.sha256,
            "generator": "refine",
            "start": self.start,
            "base_model": self.base["id"],
            "layout_digest": self.adapter.layout.digest,
            "rank": self.adapter.layout.rank,
            "seed": self.seed,
            "examples": self.used,
            "steps": self.steps,
            "report": self.files.provenance.get("report"),
        }


def require_refinable(examples: Sequence[Example], steps: int | None, seed: int) -> None:
    """Raise UsageError for examples, steps or a seed that nothing can be trained with."""
    if not 1 <= len(examples) <= MAX_EXAMPLES:
        raise UsageError(f"1 to {MAX_EXAMPLES} examples are needed, not {len(examples)}")
    if any(not example.output.strip() for example in examples):
        raise UsageError("an example has an empty answer")
    if steps is not None and not 1 <= steps <= MAX_STEPS:
        raise UsageError(f"steps must be from 1 to {MAX_STEPS}, not {steps}")
    if not 0 <= seed <= MAX_SEED:
        raise UsageError(f"seed must be from 0 to {MAX_SEED}, not {seed}")
    answers: dict[str, str] = {}
    for example in examples:
        if answers.setdefault(example.input, example.output) != example.output:
            raise UsageError(f"two examples answer one input differently: {example.input[:80]!r}")


def refine_adapter(
    base: BaseModel,
    examples: Sequence[Example],
    start: Parents | None = None,
    *,
    steps: int | None = None,
    seed: int = 0,
    profile: Profile = "portable",
    check: Check | None = None,
    progress: Progress = no_progress,
) -> Refined:
    """An adapter after training on examples; prompts are bare, the loss is the answers' alone.

    The last step's weights are kept: no example is held back, so nothing is said of how good they
    are.

    Args:
        base: the loaded base model.
        start: the adapter to go on from; None for a fresh one on the base's default modules.
        steps: of AdamW; by default 30, or as many as there are examples.
        seed: of the order of examples, and of a fresh adapter's A.
        check: see library.peft.provenance.finish.
    Raises:
        UsageError: examples or settings that nothing can be trained with.
        UnsupportedModel: there is no default for the base's modules.
        AdapterRefused: by the check.
    """
    # 1. The rows and the schedule.
    require_refinable(examples, steps, seed)
    rows = example_rows(base, examples)
    settings = RefineSettings(steps or default_steps(len(rows)))
    # 2. Training, from the start or from a fresh adapter.
    layout = (
        start.adapters[0].layout if start else layout_of(load_config(base.reference), rank=RANK)
    )
    refinement = Refinement(start.adapters[0] if start else None, rows)
    (adapter,) = refine_adapters(base, layout, [refinement], settings, seed=seed, progress=progress)
    # 3. The files.
    about = start.base if start else described(base.reference)
    provenance = Provenance(
        generator="refine",
        checkpoint=None,
        description=None,
        examples=rows_digest(examples),
        seed=seed,
        parents=start.ids if start else None,
        numerics=numerics(base.model),
        layout_digest=layout.digest,
        base=about,
        details={"steps": settings.steps, "lr": settings.lr, "rows": settings.rows,
                 "examples_used": len(rows), "mode": "bare", "profile": profile},
    )  # fmt: skip
    files = finish(to_peft(adapter, base_name=about["id"], profile=profile), provenance, check)
    identity = start.ids[0] if start else None
    return Refined(files, adapter, settings.steps, len(rows), identity, about, seed)


def default_steps(examples: int) -> int:
    """Steps for a number of examples: 30, or as many as there are, which is eight passes."""
    return max(STEPS, examples)
