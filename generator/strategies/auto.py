"""`auto`: which strategy to follow, and why.

Without examples: the nearest adapter if it is near enough, else generate, else compose. With
examples: whatever answers them best, of the nearest adapters, the generated and the composed one.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from generator.generate import TEXT_TO_LORA
from generator.request import Proposal
from generator.strategies.calibration import StrategyCalibration, strategy_calibration
from generator.strategies.makers import COMPOSE, NEAREST, Makers, Wish
from library.base.example_loss import mean_losses
from library.base.models import BaseModel, BaseReference, numerics
from library.errors import LayoutMismatch
from library.tasks.files import Example

MAX_EXAMPLES = 32  # more say little more
MAX_LENGTH = 1024  # tokens of an example

LoadBase = Callable[[BaseReference], BaseModel]


def choose(makers: Makers, wish: Wish, examples: Sequence[Example], load: LoadBase) -> Proposal:
    """The adapter that `auto` decides for; its reason says why, and `details` by which calibration.

    Raises LayoutMismatch if neither checkpoint nor library fit the base.
    """
    cannot = makers.cannot_generate(wish.base)
    if cannot and not wish.neighbours:
        nothing_near = makers.misfit(wish.base) or "the library holds nothing for it"
        raise LayoutMismatch(f"{cannot}; nor can a library help: {nothing_near}")
    found = strategy_calibration()
    if examples:
        made = _on_trial(makers, wish, examples, load, generates=not cannot)
    else:
        strategy, reason = by_similarity(found, wish, cannot, makers.misfit(wish.base))
        made = makers.make(strategy, wish, reason)
    about = {"strategy": made.chosen.strategy, "reason": made.chosen.reason}
    recovery = {"predicted_recovery": made.chosen.predicted_recovery, "calibration": found.digest}
    return replace(made, details={**made.details, **about, **recovery})


def by_similarity(
    found: StrategyCalibration, wish: Wish, cannot_generate: str, no_library: str
) -> tuple[str, str]:
    """Strategy and reason where nothing but the description is known.

    Args:
        cannot_generate: why the checkpoint is of no use; empty if it is.
        no_library: why the library is of no use; empty if it is.
    """
    if not wish.neighbours:
        why = no_library or "the library holds no other adapter for this base model"
        return TEXT_TO_LORA, f"no adapter was near: {why}"
    near = wish.neighbours[0]
    where = f"the nearest task of the library, {near.task} (similarity {near.similarity:.2f}),"
    if near.similarity >= found.nearest_from:
        return NEAREST, f"{where} reaches the calibrated {found.nearest_from:.4g}"
    below = f"{where} is below the calibrated {found.nearest_from:.4g}"
    if cannot_generate:
        return COMPOSE, f"{below}, and the checkpoint does not fit: {cannot_generate}"
    return TEXT_TO_LORA, below


def _on_trial(
    makers: Makers, wish: Wish, examples: Sequence[Example], load: LoadBase, *, generates: bool
) -> Proposal:
    """Of all candidates the one whose answers to the examples have the least loss."""
    names = [TEXT_TO_LORA] * generates + [COMPOSE] * bool(wish.neighbours)
    made = [makers.make(name, wish, "") for name in names]
    for place, near in enumerate(wish.neighbours):
        names.append(f"{NEAREST} {near.task}")
        made.append(makers.nearest(wish, "", place))
    base = load(wish.base)
    stored = [one.adapter.to("cpu", torch.bfloat16) for one in made]  # as their files hold them
    losses, count = mean_losses(base, stored, examples[:MAX_EXAMPLES], MAX_LENGTH)
    best = min(range(len(made)), key=losses.__getitem__)
    told = ", ".join(f"{name} {loss:.2f}" for name, loss in zip(names, losses, strict=True))
    reason = f"it has the least loss a token on {count} examples of these: {told}"
    chosen = replace(made[best].chosen, reason=reason)
    return replace(made[best], chosen=chosen, tried_in=numerics(base.model))
