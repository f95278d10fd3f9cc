"""Variants of classification from banks: what is asked of the texts of some topics.

A text has one topic, but no one answer: that depends on the variant alone.
"""

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise

from training.synthetic.answer_forms import AnswerForm, drawn_form
from training.synthetic.labels import arbitrary_labels
from training.synthetic.pools import TopicGroup, TopicPool, drawn_groups, topic_group
from training.synthetic.properties import Property, drawn_property
from training.synthetic.second_steps import FirstStep, drawn_step
from training.synthetic.sorting import SORT, drawn_sorting
from training.synthetic.templates import TEMPLATES
from training.synthetic.variant import Variant
from training.synthetic.wordings import Brief, Choice, worded

REGISTERS = 4  # of a variant's descriptions
_YES_NO = (
    "decide whether the {} is about {}", "check if the {} concerns {}", "say if the {} is about {}",
    "tell if {1} is the topic of the {0}", "find out whether the {} deals with {}",
    "judge whether {1} is what the {0} is about", "say for this {} whether it deals with {}",
)  # fmt: skip
_CLEAR = (
    ("yes", "no"), ("Yes", "No"), ("YES", "NO"), ("true", "false"), ("True", "False"), ("y", "n"),
    ("Y", "N"), ("TRUE", "FALSE"), ("yes, it is", "no, it isn't"), ("correct", "incorrect"),
)  # fmt: skip
_PAIRS = (
    ("1", "0"), ("match", "no match"), ("in", "out"), ("keep", "drop"), ("flag", "pass"),
    ("hit", "miss"), ("relevant", "irrelevant"), ("ja", "nein"), ("on", "off"), ("take", "leave"),
    ("positive", "negative"), ("accept", "reject"), ("+", "-"), ("oui", "non"), ("red", "green"),
    ("mine", "not mine"), ("forward", "ignore"), ("open", "closed"), ("A", "B"), ("stop", "go on"),
)  # fmt: skip
_RANKED = (
    "apply the list of conditions to the {}", "mark the {} by the condition that it meets",
    "check the {} against the conditions", "go through the conditions for the {}",
    "decide which condition the {} meets",
)  # fmt: skip
_FIRST = (
    "if several fit, the first one in the list counts",
    "check them in the order of the list and stop at the first that fits",
)
_LAST = (
    "if several fit, the one further down in the list counts",
    "where more than one fits, prefer the later one in the list",
)


def classified(rng: random.Random, pool: TopicPool) -> Variant:
    """A task on the utterances of a pool: sorting, yes or no, ranked rules, or two steps."""
    kinds = (_sorted, _sorted, _yes_no, _ranked, _two_steps)
    return rng.choice(kinds)(rng, pool)


def _sorted(rng: random.Random, pool: TopicPool) -> Variant:
    sorting = drawn_sorting(rng, pool)
    form = _form(rng, sorting.words)
    brief = Brief(
        pool.thing,
        pool.things,
        rng.choice(SORT).format(pool.thing),
        tuple(sorting.choices),
        form=form.says,
    )
    labels = [form.style(word) for word in sorting.words]
    return _variant(rng, "sort", pool, brief, lambda i, _: form.style(sorting.word(i)), labels)


def _yes_no(rng: random.Random, pool: TopicPool) -> Variant:
    n = len(pool.topics)
    asked = topic_group(pool, rng.sample(range(n), rng.randint(1, max(1, n // 2))))
    goal = rng.choice(_YES_NO).format(pool.thing, _called(rng, pool, asked.members))
    clear = rng.random() < 0.5
    yes, no = words = rng.choice(_CLEAR if clear else _PAIRS)
    if not clear and rng.random() < 0.4:
        yes, no = words = arbitrary_labels(rng, 2)
    elif not clear and rng.random() < 0.3:
        no, yes = words
    choices = [
        Choice(yes, () if clear else ("it is", "it is about that", "that is the topic")),
        Choice(no, () if clear else ("it is not", "it is about something else", "otherwise")),
    ]
    if rng.random() < 0.3:
        choices.reverse()
    form = _form(rng, words)
    brief = Brief(pool.thing, pool.things, goal, tuple(choices), form=form.says)
    said, members = (form.style(yes), form.style(no)), asked.members
    return _variant(rng, "yes-no", pool, brief, lambda i, _: said[i not in members], said)


def _called(rng: random.Random, pool: TopicPool, members: Sequence[int]) -> str:
    """Some topics in a goal, explained or not."""
    topics, mark = [pool.topics[i] for i in members], rng.choice(("{}", '"{}"', "'{}'"))
    explained = len(topics) < 3 and rng.random() < 0.5
    parts = [
        mark.format(topic.topic) + (f" ({topic.description})" if explained else "")
        for topic in topics
    ]
    return " or ".join(parts)


def _ranked(rng: random.Random, pool: TopicPool) -> Variant:
    """Conditions on the topic and on the text that overlap, and their order."""
    conditions = _conditions(rng, pool)
    n = len(conditions)
    words = arbitrary_labels(rng, n + 1)
    choices = [
        Choice(word, meanings) for word, (meanings, _) in zip(words, conditions, strict=False)
    ]
    choices, note = _in_order(rng, choices)
    default = Choice(words[n], ("anything else", "none of the others fits"))
    goal = rng.choice(_RANKED).format(pool.thing)
    brief = Brief(pool.thing, pool.things, goal, (*choices, default), (note,))
    tests = [holds for _, holds in conditions]
    return _variant(
        rng,
        "ranked",
        pool,
        brief,
        lambda i, text: words[next((k for k, holds in enumerate(tests) if holds(i, text)), n)],
        words,
    )


def _in_order(rng: random.Random, choices: list[Choice]) -> tuple[list[Choice], str]:
    """Choices, most important first, as they are listed, and what is said of their order."""
    listed, turned, told = range(3)
    order = rng.choice((listed, turned, told))
    if order == listed:
        return choices, rng.choice(_FIRST)
    if order == turned:
        return choices[::-1], rng.choice(_LAST)
    ranks = " and ".join(f"{a.word} goes before {b.word}" for a, b in pairwise(choices))
    return rng.sample(choices, len(choices)), f"if several fit, {ranks}"


def _conditions(
    rng: random.Random, pool: TopicPool
) -> list[tuple[tuple[str, ...], Callable[[int, str], bool]]]:
    """Two or three conditions, most important first: ways to say them, and whether they hold."""
    first, *more = drawn_groups(rng, pool)
    found = [_about(first), _has(drawn_property(rng, pool.texts), pool.thing)]
    if len(more) > 1 and rng.random() < 0.5:
        found.append(_about(more[0]))
    rng.shuffle(found)
    return found


def _about(group: TopicGroup) -> tuple[tuple[str, ...], Callable[[int, str], bool]]:
    return group.meanings, lambda index, _: index in group.members


def _has(drawn: Property, thing: str) -> tuple[tuple[str, ...], Callable[[int, str], bool]]:
    meanings = (f"the {thing} {drawn.says}", f"it {drawn.says}")
    return meanings, lambda _, text: drawn.holds(text)


def _two_steps(rng: random.Random, pool: TopicPool) -> Variant:
    """Sorting, and then something else to be done with the label or in its place."""
    sorting = drawn_sorting(rng, pool)
    step = drawn_step(rng, FirstStep(pool.thing, "label", pool.texts, sorting.words))
    goal = rng.choice(SORT).format(pool.thing)
    brief = Brief(pool.thing, pool.things, goal, tuple(sorting.choices), (step.note,), step.form)
    return _variant(
        rng,
        "two-steps",
        pool,
        brief,
        lambda index, text: step.answer(text, sorting.word(index)),
        tuple(dict.fromkeys(step.labels)),
    )


def _form(rng: random.Random, words: Sequence[str]) -> AnswerForm:
    """How an answer is to look, and what a label becomes; mostly the label alone."""
    return AnswerForm("", str) if rng.random() < 0.85 else drawn_form(rng, words)


def _variant(
    rng: random.Random,
    kind: str,
    pool: TopicPool,
    brief: Brief,
    answer: Callable[[int, str], str],
    labels: Sequence[str],
) -> Variant:
    """The variant that a brief describes, in a formal and three other registers."""
    row = partial(_row, pool, answer)
    parts = repr((brief, [topic.topic for topic in pool.topics]))
    name = f"{kind}/{hashlib.sha256(parts.encode()).hexdigest()[:16]}"
    shown = dict(row(rng) for _ in range(3))
    brief = replace(brief, examples=tuple(shown.items()))
    others = rng.sample([r for r in TEMPLATES if r != "formal"], REGISTERS - 1)
    texts = tuple(worded(brief, register, rng) for register in ("formal", *others))
    return Variant(name, lambda: texts, row, tuple(dict.fromkeys(labels)))


def _row(pool: TopicPool, answer: Callable[[int, str], str], rng: random.Random) -> tuple[str, str]:
    index, text = pool.draw(rng)
    return text, answer(index, text)
