"""Lines on what training did, for people."""

from collections.abc import Iterator
from typing import Any


def training_lines(refined: dict[str, Any]) -> Iterator[str]:
    """Rows and steps, what was held out or back, and what nobody measured.

    Args:
        refined: the object of `--json`.
    """
    taught, examples = refined["inputs"], refined["examples_used"]
    rows = [f"{examples} examples"] if examples else []
    if taught:
        written = " written from the description" if taught["writer"] else ""
        rows.append(f"a teacher's answers to {taught['used']} inputs{written}")
    kept = taught["kept_step"] if taught else refined["steps"]
    chosen = "" if kept == refined["steps"] else f" and kept step {kept}"
    yield f"  trained {refined['steps']} steps on {' and '.join(rows)}{chosen}"
    if taught:
        yield from _answered(taught)
    held_out = refined["held_out"]
    if held_out is not None:
        yield f"  held out, {held_out['right']} of {held_out['of']} answers were exactly right"
        if held_out["loss"] > held_out["start_loss"]:
            yield "  training made held-out answers less likely: the start may be better"
    elif examples:
        yield "  not measured: no example was held out"
    else:
        yield "  not measured: nobody said which answers are right, and the teacher may be wrong"


def _answered(taught: dict[str, Any]) -> Iterator[str]:
    """What became of the inputs, and how often the adapter answers as the teacher did."""
    agreement = taught["agreement"]
    if agreement is not None:
        yield (
            f"  held back, {agreement['same']} of {agreement['of']} answers are the teacher's"
            f" ({agreement['start_same']} before training)"
        )
    reasons = {
        "repeated": "came again",
        "labelled": "are among the examples",
        "too_long": "are too long",
        "empty": "got an empty answer",
    }
    left_out = [f"{taught[key]} {why}" for key, why in reasons.items() if taught[key]]
    if left_out:
        yield f"  left out of {taught['given']} inputs: {', '.join(left_out)}"
    if taught["different"] == 1 and taught["used"] > 1:
        yield "  the teacher answered all of them alike: it may not do this task"
    if taught["cut"]:
        yield f"  {taught['cut']} answers were as long as the teacher's may be, and are perhaps cut"
