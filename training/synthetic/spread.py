"""How many variants a family has, estimated by drawing: what it is drawn by, and put plainly by."""

import math
import random
from collections import Counter
from functools import cache

from training.synthetic.variant import Family

DRAWS = 60
PAIRS = DRAWS * (DRAWS - 1) // 2


@cache
def variants_of(family: Family) -> float:
    """One over the chance that two variants of a family are the same, from 1 to PAIRS.

    That is the number of its variants, where all are equally likely, and as many as are likely
    otherwise. The chance is the share of equal pairs among DRAWS variants, so families with more
    than PAIRS variants are told apart no further.
    """
    drawn = Counter(family(random.Random(f"spread/{i}")).name for i in range(DRAWS))
    equal = sum(count * (count - 1) // 2 for count in drawn.values())
    return PAIRS / max(1, equal)


def weight_of(family: Family) -> float:
    """The share of a family among others, up to a factor: the logarithm of its variants, above 0.

    A family with a handful of variants comes a few times, not as often as one with thousands.
    """
    return math.log1p(variants_of(family))
