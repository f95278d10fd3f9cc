"""How a step of training is drawn from tasks."""

from dataclasses import dataclass

from library.errors import UsageError


@dataclass(frozen=True)
class SamplingConfig:
    """Settings of how a step is drawn. Raises UsageError for what makes no sense.

    Attributes:
        tasks_per_step: tasks in a step.
        rows_per_task: rows of each.
        prompted_share: share of rows whose prompt contains the task's definition; the others are
            bare, so the adapter has to carry the task.
        definition_share: share of steps in which a task goes by its definition; otherwise by a
            random one of its summary and paraphrases.
        relabel_share: share of steps in which a task that has relabellings goes by one of them.
        relabellings: how many a task has (training.data.relabel).
        variant_share: share of steps in which a real task goes by a variant, that is, with further
            rules, which its description says (training.data.task_variants).
        paired_share: share of a step's real tasks that come in pairs: a task and a variant of it
            with the same rows.
        examples: largest number of pairs that a task comes with; 0 for none.
        no_examples_share: share of steps in which a task comes without; otherwise with 1 to
            `examples` train rows that are not trained on in the step.
        no_description_share: share of steps in which a task comes with examples alone.
        synthetic_share: share of a step's tasks that are synthetic (training.synthetic); those of
            one step are in no other, as long as there are some left.
        classification_share: share of their groups that are classification; the others are of the
            procedural families.
        synthetic_group: synthetic tasks that follow each other and share their inputs. Best a
            divisor of their number in a step.
        distinct_tasks: largest number of different tasks, real ones first, then authored ones, of
            all steps; None for endless. Relabellings and variants count as the task that they are
            of.
        max_length: longer rows are left out.
        micro_batches: groups of similar length that a step's rows are split into; each is padded to
            its longest row and run forward and backward on its own.
    """

    tasks_per_step: int = 32
    rows_per_task: int = 8
    prompted_share: float = 0.15
    definition_share: float = 0.4
    relabel_share: float = 0.0
    relabellings: int = 48
    variant_share: float = 0.0
    paired_share: float = 0.0
    examples: int = 0
    no_examples_share: float = 0.25
    no_description_share: float = 0.25
    synthetic_share: float = 0.0
    classification_share: float = 0.5
    synthetic_group: int = 2
    distinct_tasks: int | None = None
    max_length: int = 320
    micro_batches: int = 6

    @property
    def endless(self) -> bool:
        """Whether there are descriptions and rows that no other step has."""
        return bool(self.synthetic or self.variant_share or self.pairs)

    @property
    def synthetic(self) -> int:
        """Number of synthetic tasks in a step."""
        return round(self.synthetic_share * self.tasks_per_step)

    @property
    def pairs(self) -> int:
        """Number of real tasks in a step that come twice."""
        real = self.tasks_per_step - self.synthetic
        return min(round(self.paired_share * real / 2), real // 2)

    def __post_init__(self) -> None:
        for name in ("synthetic_share", "classification_share", "variant_share", "paired_share"):
            share: float = getattr(self, name)
            if not 0 <= share <= 1:
                raise UsageError(f"sampling.{name} must be from 0 to 1, not {share:g}")
        for name in ("synthetic_group", "distinct_tasks"):
            number: int | None = getattr(self, name)
            if number is not None and number < 1:
                raise UsageError(f"sampling.{name} must be 1 or more, not {number}")
        if self.examples < 0:
            raise UsageError(f"sampling.examples must be a number of pairs, not {self.examples}")
        shares = (self.no_examples_share, self.no_description_share)
        if min(shares) < 0 or sum(shares) > 1:
            raise UsageError(
                "no_examples_share and no_description_share must not be negative, nor exceed 1 "
                f"together: {shares[0]:g} and {shares[1]:g}"
            )
