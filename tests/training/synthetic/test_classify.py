"""Classification: answers follow from the topic, the text and the variant alone."""

import random
import re
from collections import defaultdict
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.synthetic.banks import Topic, plain, read_topics
from training.synthetic.classify import classified
from training.synthetic.labels import LONGEST, arbitrary_labels, names_as_labels
from training.synthetic.pools import TopicPool, drawn_groups, drawn_pool
from training.synthetic.properties import drawn_property
from training.synthetic.variant import Variant

TOPICS = read_topics()


def variant(seed: int) -> tuple[TopicPool, Variant]:
    rng = random.Random(seed)
    pool = drawn_pool(rng, TOPICS)
    return pool, classified(rng, pool)


@given(st.integers(0, 10**9))
def test_a_pool_has_two_to_eight_topics_that_share_no_name(seed: int) -> None:
    pool = drawn_pool(random.Random(seed), TOPICS)
    names = [n for t in pool.topics for n in {plain(n) for n in (t.topic, *t.names)}]
    assert 2 <= len(pool.topics) <= 8 and len(set(names)) == len(names)


def test_topics_of_one_name_never_meet() -> None:
    texts = tuple(map(str, range(20)))
    one = Topic("a", "x", ("a", "alpha"), "is a", texts)
    other = Topic("z", "y", ("Alpha", "omega"), "is z", texts)
    third, fourth = (
        Topic("b", "x", ("b", "bb"), "is b", texts),
        Topic("c", "y", ("c", "d"), "", texts),
    )
    for seed in range(100):
        topics = drawn_pool(random.Random(seed), [one, other, third, fourth]).topics
        assert not {one, other} <= set(topics)


@given(st.integers(0, 10**9))
def test_groups_are_a_partition(seed: int) -> None:
    rng = random.Random(seed)
    pool = drawn_pool(rng, TOPICS)
    groups = drawn_groups(rng, pool)
    assert len(groups) >= 2 and all(group.meanings for group in groups)
    assert sorted(i for g in groups for i in g.members) == list(range(len(pool.topics)))


@given(st.integers(0, 10**9), st.integers(1, 9))
def test_arbitrary_labels_differ_and_are_short(seed: int, n: int) -> None:
    labels = arbitrary_labels(random.Random(seed), n)
    assert len({label.casefold() for label in labels}) == n
    assert all(label == label.strip() and 1 <= len(label.split()) <= LONGEST for label in labels)


def test_names_serve_as_labels_where_all_groups_have_different_ones() -> None:
    rng = random.Random(0)
    assert names_as_labels(rng, [["a b c d"], ["x"]]) == []
    assert names_as_labels(rng, [[], ["x"]]) == []
    assert names_as_labels(rng, [["x"], ["X"]]) == []
    (one, two) = names_as_labels(rng, [["late parcel", "one two three four"], ["lost"]])
    assert re.sub(r"\W|_", "", one).casefold() == "lateparcel" and "lost" in two.casefold()


@given(st.integers(0, 10**9))
def test_a_property_is_true_of_some_texts_and_false_of_some(seed: int) -> None:
    texts = TOPICS[seed % len(TOPICS)].utterances
    drawn = drawn_property(random.Random(seed), texts)
    assert {drawn.holds(text) for text in texts} == {True, False}


@pytest.mark.parametrize(
    ("says", "true", "false"),
    [
        ("ends with a question mark", "Is it?", "Is it? No."),
        ("contains a digit", "call 5", "call five"),
        ("contains a comma", "a, b", "a b"),
        ("begins with a capital letter", "Éa", "éA"),
        ('contains the word "the"', "The end", "then"),
        ("has more than 5 words", "a b c d e f", "a b c d e"),
        ("has fewer than 5 words", "a b c d", "a b c d e"),
    ],
)
def test_properties_mean_what_they_say(says: str, true: str, false: str) -> None:
    drawn = (drawn_property(random.Random(seed), [true, false]) for seed in range(2000))
    found = next(one for one in drawn if one.says.startswith(says))
    assert found.holds(true) and not found.holds(false)


@given(st.integers(0, 10**9))
def test_answers_are_labels_rows_are_clean_and_a_seed_is_a_task(seed: int) -> None:
    pool, drawn = variant(seed)
    again = variant(seed)[1]
    assert (drawn.name, drawn.descriptions) == (again.name, again.descriptions)
    assert len(set(drawn.descriptions)) >= 3
    for j in range(30):
        text, answer = drawn.row(random.Random(j))
        assert (text, answer) == again.row(random.Random(j))
        assert text in pool.texts and answer and answer == answer.strip()
        assert not drawn.labels or answer in drawn.labels


def test_every_kind_occurs_and_its_answers_vary() -> None:
    kinds: dict[str, list[int]] = defaultdict(list)
    for seed in range(400):
        drawn = variant(seed)[1]
        answers = {drawn.row(random.Random(j))[1] for j in range(60)}
        kinds[drawn.name.split("/")[0]].append(len(answers))
    assert set(kinds) == {"sort", "yes-no", "ranked", "two-steps"}
    assert all(min(counts) >= 2 and len(counts) > 30 for counts in kinds.values())


def test_the_same_texts_get_other_answers_in_other_variants_of_a_pool() -> None:
    pool = drawn_pool(random.Random(1), TOPICS)
    variants = [classified(random.Random(seed), pool) for seed in range(8)]
    rows = [[v.row(random.Random(j)) for v in variants] for j in range(20)]
    for row in rows:
        assert len({text for text, _ in row}) == 1
        assert len({answer for _, answer in row}) >= 4
    assert len({v.name for v in variants}) == 8


def test_ranked_answers_follow_the_order_that_is_told() -> None:
    orders = set()
    for seed in range(800):
        _, drawn = variant(seed)
        ranks, text = drawn.labels[:-1], drawn.descriptions[0]
        if not drawn.name.startswith("ranked"):
            continue
        if "goes before" in text:
            orders.add("told")
            assert all(f"{a} goes before {b}" in text for a, b in pairwise(ranks))
        elif min(map(len, ranks)) > 3:
            turned = "further down" in text or "the later one" in text
            orders.add(turned)
            places = [text.index(word) for word in ranks]
            assert places == sorted(places, reverse=turned)
    assert orders == {"told", True, False}


def test_the_first_of_ranked_conditions_holds_without_regard_to_the_others() -> None:
    found = 0
    for seed in range(400):
        pool, drawn = variant(seed)
        if (
            not drawn.name.startswith("ranked")
            or "ends with a question" not in drawn.descriptions[0]
        ):
            continue
        rows = dict(drawn.row(random.Random(j)) for j in range(1500))
        first = {text for text, answer in rows.items() if answer == drawn.labels[0]}
        whole = {
            t for topic in pool.topics if first & {*topic.utterances} for t in topic.utterances
        }
        asking = {text for text in rows if text.endswith("?")}
        assert first in (whole & rows.keys(), asking)
        found += first == asking
    assert found > 1
