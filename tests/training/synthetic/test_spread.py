"""How many variants a family has: right where it can be counted, and how often it is drawn."""

import math
import random
from collections import Counter

import pytest

from training.synthetic.spread import PAIRS, variants_of, weight_of
from training.synthetic.stream import SyntheticTasks
from training.synthetic.variant import Family, Variant


def family_of(size: int) -> Family:
    def family(rng: random.Random) -> Variant:
        n = rng.randrange(size)
        texts = tuple(f"{way} {n}" for way in ("Say", "say", "please say"))
        return Variant(f"{size}/{n}", lambda: texts, lambda r: (str(r.randrange(9)), str(n)))

    return family


@pytest.mark.parametrize("size", [1, 2, 10, 60, 200, 10**9])
def test_variants_are_counted(size: int) -> None:
    family = family_of(size)
    assert abs(math.log(variants_of(family) / min(size, PAIRS))) <= math.log(2)
    assert variants_of(family) == variants_of(family_of(size))
    assert weight_of(family) == math.log1p(variants_of(family)) > 0


def test_variants_that_are_seldom_drawn_count_little() -> None:
    def mostly_one(rng: random.Random) -> Variant:
        return family_of(1 if rng.random() < 0.9 else 10**9)(rng)

    assert variants_of(mostly_one) < 2


def test_families_come_as_often_as_they_weigh() -> None:
    families = {str(size): family_of(size) for size in (2, 50, 10**9)}
    stream = SyntheticTasks(0, families, (), group=1)
    counts = Counter(stream[i].name.split("/")[3] for i in range(3000))
    total = sum(map(weight_of, families.values()))
    for size, family in families.items():
        assert abs(counts[size] / 3000 - weight_of(family) / total) < 0.03
