"""Pools: the topics whose utterances are a task's inputs, and how they fall into groups."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from training.synthetic.banks import Topic, by_domain, plain

MAX_TOPICS = 8
_THINGS = ("message", "text", "note", "line", "comment", "post", "ticket", "snippet", "query")


@dataclass(frozen=True)
class TopicPool:
    """Topics that are told apart by their names, and what an input is called, such as "message".

    Variants of one pool have the same inputs where their rows are drawn alike.
    """

    topics: tuple[Topic, ...]
    thing: str

    @property
    def things(self) -> str:
        return f"{self.thing[:-1]}ies" if self.thing.endswith("y") else f"{self.thing}s"

    @property
    def texts(self) -> list[str]:
        """All inputs."""
        return [text for topic in self.topics for text in topic.utterances]

    def draw(self, rng: random.Random) -> tuple[int, str]:
        """A topic's number and one of its utterances."""
        index = rng.randrange(len(self.topics))
        return index, rng.choice(self.topics[index].utterances)


def drawn_pool(rng: random.Random, topics: Sequence[Topic]) -> TopicPool:
    """2 to 8 topics of one domain, or of several."""
    if rng.random() < 0.6:
        topics = rng.choice([some for some in by_domain(topics).values() if len(some) > 1])
    chosen: list[Topic] = []
    wanted, taken = rng.randint(2, min(MAX_TOPICS, len(topics))), set[str]()
    for topic in rng.sample(topics, len(topics)):
        if len(chosen) == wanted:
            break
        names = {plain(name) for name in (topic.topic, *topic.names)}
        if not names & taken:
            chosen.append(topic)
            taken |= names
    return TopicPool(tuple(chosen), rng.choice(_THINGS))


@dataclass(frozen=True)
class TopicGroup:
    """Topics of a pool, by number, that are one answer.

    Attributes:
        names: what the group can be called; none for a mixed one.
        meanings: different ways to say what it stands for.
    """

    members: tuple[int, ...]
    names: tuple[str, ...]
    meanings: tuple[str, ...]


def topic_group(pool: TopicPool, members: Sequence[int]) -> TopicGroup:
    """The group of some topics of a pool."""
    topics = [pool.topics[i] for i in members]
    called = " or ".join(topic.topic for topic in topics)
    if len(topics) > 1:
        known = " or ".join(topic.names[0] for topic in topics)
        return TopicGroup(tuple(members), (), (called, f"it is about {called}", known))
    names, description = topics[0].names, topics[0].description
    return TopicGroup(
        tuple(members), names, (description, called, f"{called}, that is, {description}")
    )


def drawn_groups(rng: random.Random, pool: TopicPool) -> list[TopicGroup]:
    """All topics of a pool in two groups or more: by domain, one by one, or some together."""
    numbers = range(len(pool.topics))
    domains = {topic.domain for topic in pool.topics}
    if len(domains) > 1 and rng.random() < 0.4:
        return [_domain(pool, domain) for domain in sorted(domains)]
    order, parts = rng.sample(numbers, len(numbers)), len(numbers)
    if parts > 2 and rng.random() < 0.35:
        parts = rng.randint(2, parts - 1)
    cuts = [0, *sorted(rng.sample(range(1, len(order)), parts - 1)), len(order)]
    return [topic_group(pool, order[a:b]) for a, b in pairwise(cuts)]


def _domain(pool: TopicPool, domain: str) -> TopicGroup:
    members = tuple(i for i, topic in enumerate(pool.topics) if topic.domain == domain)
    listed = ", ".join(pool.topics[i].topic for i in members)
    return TopicGroup(members, (domain,), (domain, f"{domain}: {listed}", f"the field of {domain}"))
