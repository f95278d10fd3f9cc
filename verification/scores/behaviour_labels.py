"""Labels: the answers of examples that have but a few different ones, and answers beside them.

An answer that is none of them is wrong for every input, which a loss does not show.
"""

from collections.abc import Iterable, Sequence

from library.tasks.files import Example

LABELS = (2, 20)  # fewest and most different answers
FEWEST = 4  # examples; of fewer, nobody knows whether answers come again


def answer_labels(examples: Sequence[Example]) -> frozenset[str]:
    """The different answers, if they are labels, case folded; else nothing.

    They are if there are 2 to 20, at most half as many as examples, of which there are 4 or more.
    """
    if len(examples) < FEWEST:
        return frozenset()
    found = frozenset(folded(answer) for example in examples for answer in example.outputs)
    return found if LABELS[0] <= len(found) <= min(LABELS[1], len(examples) // 2) else frozenset()


def outside_labels(answers: Iterable[str], labels: frozenset[str]) -> int:
    """How many answers are none of the labels."""
    return sum(folded(answer) not in labels for answer in answers)


def folded(answer: str) -> str:
    """An answer without what labels are compared without: case and outer spaces."""
    return answer.strip().casefold()
