"""Held-out examples: how well an adapter answers what it was not trained on, before any user asks.

Trained on all of its examples, an adapter says nothing about new inputs. So beside the adapter that
is handed out, one or two others with the same start and schedule train on a part of the examples
each and answer the rest. They are slightly worse than the one that is handed out, which has seen
more.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from library.adapter import Adapter, stack
from library.base.batches import TokenRow
from library.base.example_loss import scores_under
from library.base.models import BaseModel

FEWEST = 4  # examples that are worth a split
TWO_HALVES = 8  # up to as many, every example is held out once
MOST = 16  # held out


@dataclass(frozen=True)
class HeldOut:
    """Answers to held-out examples, by adapters that were trained on the others.

    Attributes:
        right: how many are exactly right,
        of: out of so many.
        loss: mean loss of the right answers, nats a token.
        start_loss: the same of the start, before any training.
    """

    right: int
    of: int
    loss: float
    start_loss: float

    def to_dict(self) -> dict[str, Any]:
        """As provenance and `--json` show it."""
        return {
            "right": self.right,
            "of": self.of,
            "loss": round(self.loss, 4),
            "start_loss": round(self.start_loss, 4),
        }


def held_out_sets(count: int, seed: int) -> list[tuple[int, ...]]:
    """Which of `count` examples are held out, one tuple for each adapter that trains on the rest.

    Two halves of up to eight examples, a quarter of more (16 at most), none of fewer than four.
    """
    order = list(range(count))
    random.Random(f"{seed}/held-out").shuffle(order)
    if count < FEWEST:
        return []
    if count <= TWO_HALVES:
        return [tuple(order[: count // 2]), tuple(order[count // 2 :])]
    return [tuple(order[: min(MOST, count // 4)])]


def held_out_scores(
    base: BaseModel,
    start: Adapter,
    trained: Sequence[Adapter],
    rows: Sequence[TokenRow],
    sets: Sequence[tuple[int, ...]],
) -> HeldOut | None:
    """Scores of held-out rows; None if nothing was held out.

    Args:
        start: what all were trained from.
        trained: one adapter for each set, trained on the rows outside it.
        rows: all examples.
        sets: as `held_out_sets` gives them.
    """
    held = [(owner, i) for owner, members in enumerate(sets) for i in members]
    if not held:
        return None
    last = len(trained)  # the start stands behind the trained ones
    asked = [replace(rows[i], owner=owner) for owner, i in held]
    asked += [replace(rows[i], owner=last) for _, i in held]
    like = trained[0].A[next(iter(trained[0].A))].dtype
    right, losses = scores_under(base, stack([*trained, start.to("cpu", like)]), asked)
    count = len(held)
    return HeldOut(
        right=int((right[:count] == 1).sum()),
        of=count,
        loss=float(losses[:count].mean()),
        start_loss=float(losses[count:].mean()),
    )
