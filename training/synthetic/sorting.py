"""Sorting: groups of a pool's topics, and a word for each."""

import random
from dataclasses import dataclass

from training.synthetic.labels import OTHERS, arbitrary_labels, names_as_labels
from training.synthetic.pools import TopicGroup, TopicPool, drawn_groups
from training.synthetic.wordings import Choice

SORT = (
    "say which label fits the {}", "classify the {}", "sort the {} into the right group",
    "decide what the {} is about", "tag the {} by its topic", "route the {} to where it belongs",
    "pick the one answer that fits the {} best", "put the {} into a category", "label the {}",
    "find out what the {} deals with", "assign the {} to a class", "determine the kind of {}",
)  # fmt: skip


@dataclass(frozen=True)
class Sorting:
    """Groups of a pool's topics with a word for each; the last may be one for all others."""

    groups: list[TopicGroup]
    words: list[str]
    choices: list[Choice]

    def word(self, index: int) -> str:
        """The word of a topic's group."""
        return next(w for g, w in zip(self.groups, self.words, strict=True) if index in g.members)


def drawn_sorting(rng: random.Random, pool: TopicPool) -> Sorting:
    """A pool's topics sorted by their names or arbitrary words, with or without one for others."""
    groups = drawn_groups(rng, pool)
    other = len(groups) > 2 and rng.random() < 0.4
    if other:
        kept = rng.randint(2, len(groups) - 1)
        rest = tuple(i for group in groups[kept:] for i in group.members)
        groups = [*groups[:kept], TopicGroup(rest, (), ("anything else", "none of the others"))]
    named = groups[:-1] if other else groups
    words = names_as_labels(rng, [group.names for group in named]) if rng.random() < 0.45 else []
    clear = bool(words) and rng.random() < 0.5
    if not words:
        words = arbitrary_labels(rng, len(groups))[: len(named)]
    if other:
        taken = {word.casefold() for word in words}
        words.append(rng.choice([word for word in OTHERS if word.casefold() not in taken]))
    choices = [
        Choice(word, () if clear and group.names else group.meanings)
        for word, group in zip(words, groups, strict=True)
    ]
    rng.shuffle(choices)
    return Sorting(groups, words, choices)
