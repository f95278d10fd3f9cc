"""The interface of the two trainers: the batched one, and PEFT's."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Generic, TypeVar

from library.layout import Layout
from library.progress import Progress, no_progress
from library.trainer.recipes.recipe import Recipe, TrainingJob
from library.trainer.run_state import Figures, TrainConfig, Trained

AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)


@dataclass
class AdapterTrainer(ABC, Generic[AnyRecipe]):
    """Trains jobs, each to an adapter of one layout.

    Attributes:
        model: the frozen base, a causal LM of transformers; after training it is as before.
        layout: of the adapters.
        recipe: how one is trained.
        config: for how long, and how many at once.
        pad: id of the padding token.
        seed: of the start that all adapters share.
        figures: the cost so far.

    Raises UsageError where the recipe cannot serve the layout.
    """

    model: Any
    layout: Layout
    recipe: AnyRecipe
    config: TrainConfig
    _: KW_ONLY
    pad: int
    seed: int = 0
    figures: Figures = field(init=False, default_factory=Figures)

    def __post_init__(self) -> None:
        self.recipe.require_fit(self.layout, self.config.steps)

    @abstractmethod
    def run(
        self, jobs: Sequence[TrainingJob], progress: Progress = no_progress
    ) -> Iterator[Trained]:
        """Train all jobs; yield each as it is done.

        `progress` is called after every step with steps; an adapter that stopped early counts
        with all of its steps.
        """
