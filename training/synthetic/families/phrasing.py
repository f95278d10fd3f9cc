"""How a family puts its task: five registers, of which the name of the variant picks the frame."""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from training.synthetic.variant import Variant

FORMAL = (
    "You are given {given}. {do}. {notes}",
    "The input is {given}. {do}. {notes}",
    "Each input is {given}. {do}. {notes} Do not explain your answer.",
    "As input you receive {given}. Your task: {do}. {notes}",
    "{do}. The input is {given}. {notes}",
    "In this task the input is {given}. {do}. {notes} Reply with nothing else.",
)
POLITE = (
    "Hi! I will send you {given}. Could you please {do}? {notes} Thank you!",
    "Could you {do}, please? You will get {given}. {notes} Thanks.",
    "Hello, I would like you to {do}. What I send is {given}. {notes} Many thanks!",
    "I need a little help: for {given}, please {do}. {notes}",
    "Would you mind helping me? I have {given} and want you to {do}. {notes}",
    "When I give you {given}, please {do}. {notes} Just the answer, thank you.",
)
HEADINGS = ("", "Task:\n", "# Task\n", "What to do\n", "Instructions:\n", "Rules:\n", "## Steps\n")
MARKS = ("- ", "* ", "• ", "– ")
EXAMPLES = (
    "Given {given}, {do}. {notes}\n\nInput: {x}\nOutput: {y}",
    "{do}. {notes}\n\nExample\ninput: {x}\noutput: {y}",
    "For {given}: {do}. {notes} For example:\nInput: {x}\nAnswer: {y}",
    "Input: {given}. Output: {do}. {notes}\n\nExample input: {x}\nExample output: {y}",
    "Given {given}, {do}. {notes}\n\n{x}\n=> {y}",
)


@dataclass(frozen=True)
class Wording:
    """What all registers are made of.

    Attributes:
        given: what the input is, a noun phrase.
        do: what to do, an imperative in lower case, without a full stop.
        terse: the whole task in few words, in lower case but for quoted parameters.
        notes: further sentences that the answer depends on.
    """

    given: str
    do: str
    terse: str
    notes: tuple[str, ...] = ()


def build(
    family: str,
    parameters: tuple[object, ...],
    wording: Wording,
    row: Callable[[random.Random], tuple[str, str]],
    labels: Iterable[str] = (),
) -> Variant:
    """The variant of these parameters; all that the wording depends on must be among them."""
    name = f"{family}{parameters!r}"
    style = random.Random(name)
    shown, answer = row(style)
    parts = {"given": wording.given, "notes": " ".join(wording.notes), "x": shown, "y": answer}
    sentence = wording.do[0].upper() + wording.do[1:]
    mark = style.choice(MARKS)
    points = (f"Input: {wording.given}", sentence, *wording.notes)
    framed = (
        _capitalised(style.choice(FORMAL), do=sentence, **parts),
        wording.terse,
        style.choice(POLITE).format(do=wording.do, **parts),
        style.choice(HEADINGS) + "\n".join(mark + point for point in points),
        _capitalised(style.choice(EXAMPLES), do=wording.do, **parts),
    )
    return Variant(name, tuple(_tidy(text) for text in framed), row, tuple(dict.fromkeys(labels)))


def _capitalised(frame: str, do: str, **parts: str) -> str:
    """A frame filled in, with a capital at its beginning."""
    text = frame.format(do=do, **parts)
    return text[0].upper() + text[1:]


def _tidy(text: str) -> str:
    """The text without the spaces that empty notes leave."""
    return "\n".join(line.rstrip() for line in text.replace("  ", " ").splitlines()).strip()


def listed(items: Iterable[str], last: str = "and") -> str:
    """Items as a sentence lists them: "a, b and c"."""
    *head, tail = items
    return f"{', '.join(head)} {last} {tail}" if head else tail
