"""The stream of synthetic tasks: number i is a function of the seed and i, and there is no last."""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from library.errors import UsageError
from library.tasks.files import Example
from training.synthetic.banks import Topic
from training.synthetic.classify import classified
from training.synthetic.pools import drawn_pool
from training.synthetic.settings import in_a_setting
from training.synthetic.spread import PAIRS, weight_of
from training.synthetic.variant import Family, Variant

TRIES = 10  # for a variant that its group does not have yet
ROWS = 1000  # that a task has until it comes again
PLAIN_SHARE = 0.4  # of the descriptions of classification without a setting
MOST_PLAIN = 0.5  # of those of a family with many variants; the fewer it has, the less


@dataclass(frozen=True)
class SyntheticTask:
    """A task of the stream.

    Attributes:
        name: its place in the stream and its variant.
        description: what the task is.
        paraphrase: the same in another register.
        row: row j; tasks of one group have the same inputs where their variants can.
        labels: all answers, where answers are labels.
    """

    name: str
    description: str
    paraphrase: str
    row: Callable[[int], Example]
    labels: tuple[str, ...]


class SyntheticTasks:
    """Tasks without end, by number from 0 up.

    Consecutive tasks form groups: variants of one family, or of classification of the same texts,
    so that only the description explains an answer. Families are drawn by the logarithm of the
    number of their variants (training.synthetic.spread). Two of five descriptions are plain, mostly
    of families with many variants, so that seldom one comes twice; all others hold an invented
    name that no other has.

    Args:
        seed: of everything that is drawn.
        families: procedural families by name.
        topics: for classification; of one domain at least two.
        classification_share: share of the groups that are classification.
        group: number of tasks in a group.
        count: number of different tasks. Number i + count is number i again, with its descriptions
            swapped and with other rows. None for no end.
    Raises:
        UsageError: neither families nor topics, a share outside 0 to 1, an empty group, no tasks.
    """

    def __init__(
        self,
        seed: int,
        families: Mapping[str, Family],
        topics: Sequence[Topic],
        classification_share: float = 0.5,
        group: int = 2,
        count: int | None = None,
    ) -> None:
        if not families and not topics:
            raise UsageError("synthetic tasks need families or topics")
        if not 0 <= classification_share <= 1 or group < 1:
            raise UsageError("classification_share must be from 0 to 1, and group from 1 up")
        if count is not None and count < 1:
            raise UsageError(f"there must be at least one synthetic task, not {count}")
        self.seed, self.group, self.count = seed, group, count
        self.families = [families[name] for name in sorted(families)]
        self.weights = [weight_of(family) for family in self.families]
        self.topics = tuple(topics)
        self.share = classification_share if families else 1.0
        if not topics:
            self.share = 0.0

    def __getitem__(self, number: int) -> SyntheticTask:
        """Task `number`; raises UsageError if it is negative."""
        if number < 0:
            raise UsageError(f"synthetic tasks have numbers from 0 up, not {number}")
        visit, number = divmod(number, self.count) if self.count else (0, number)
        group, place = divmod(number, self.group)
        variants, plain = self._group(group, place + 1)
        variant, name = variants[-1], f"synthetic/{self.seed}/{number}/{variants[-1].name}"
        rng = random.Random(f"{self.seed}/{number}/description")
        first, second = rng.sample(list(dict.fromkeys(variant.descriptions)), 2)
        texts = [
            text if rng.random() < plain else in_a_setting(text, 2 * number + k, rng)
            for k, text in enumerate((first, second))
        ]
        row = partial(_row, variant, name, f"{self.seed}/{group}/row", visit * ROWS)
        if visit % 2:
            texts.reverse()
        return SyntheticTask(name, texts[0], texts[1], row, variant.labels)

    def _group(self, group: int, size: int) -> tuple[list[Variant], float]:
        """The first variants of a group, all different; and the share of plain descriptions."""
        rng = random.Random(f"{self.seed}/{group}/group")
        classification = rng.random() < self.share
        draw, plain = self._source(rng, classification)
        variants: list[Variant] = []
        for place in range(size):
            drawn = (
                draw(random.Random(f"{self.seed}/{group}/{place}/{attempt}"))
                for attempt in range(TRIES)
            )
            names = {variant.name for variant in variants}
            fresh = next((variant for variant in drawn if variant.name not in names), None)
            variants.append(fresh or self._other(group, place, classification))
        return variants, plain

    def _source(self, rng: random.Random, classification: bool) -> tuple[Family, float]:
        """A family, or classification of one pool's texts; and its share of plain descriptions."""
        if not classification:
            (family,) = rng.choices(self.families, self.weights)
            return family, MOST_PLAIN * weight_of(family) / math.log1p(PAIRS)
        pool = drawn_pool(rng, self.topics)
        return lambda own: classified(own, pool), PLAIN_SHARE

    def _other(self, group: int, place: int, classification: bool) -> Variant:
        """In place of a family or pool that has no more variants: one of any other."""
        rng = random.Random(f"{self.seed}/{group}/{place}/other")
        draw, _ = self._source(rng, classification)
        return draw(rng)


def _row(variant: Variant, task: str, seed: str, first: int, j: int) -> Example:
    text, answer = variant.row(random.Random(f"{seed}/{first + j}"))
    return Example(f"{task}/{first + j}", text, (answer,))
