"""How a family puts its task: eight registers, of which the name of the variant picks the frame."""

import json
import random
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from training.synthetic.variant import Variant

FORMAL = (
    "You are given {given}. {do}. {notes}",
    "The input is {given}. {do}. {notes}",
    "Each input is {given}. {do}. {notes} Do not explain your answer.",
    "As input you receive {given}. Your task: {do}. {notes}",
    "{do}. The input is {given}. {notes}",
    "In this task the input is {given}. {do}. {notes} Reply with nothing else.",
    "{do}. {notes} You will be given {given}.",
    "Input: {given}. Instruction: {do}. {notes}",
    "For each input, which is {given}, carry out this instruction: {do}. {notes}",
)
POLITE = (
    "Hi! I will send you {given}. Could you please {do}? {notes} Thank you!",
    "Could you {do}, please? You will get {given}. {notes} Thanks.",
    "Hello, I would like you to {do}. What I send is {given}. {notes} Many thanks!",
    "I need a little help: for {given}, please {do}. {notes}",
    "Would you mind helping me? I have {given} and want you to {do}. {notes}",
    "When I give you {given}, please {do}. {notes} Just the answer, thank you.",
    "Good morning! Please {do}. You will receive {given}. {notes} Thanks in advance.",
    "It would be great if you could {do}. I have {given}. {notes}",
    "Please {do}. I will paste {given}. {notes} That is all I need.",
)
HEADINGS = ("", "Task:\n", "# Task\n", "What to do\n", "Instructions:\n", "Rules:\n", "## Steps\n")
MARKS = ("- ", "* ", "• ", "– ")
EXAMPLES = (
    "Given {given}, {do}. {notes}\n\nInput: {x}\nOutput: {y}",
    "{do}. {notes}\n\nExample\ninput: {x}\noutput: {y}",
    "For {given}: {do}. {notes} For example:\nInput: {x}\nAnswer: {y}",
    "Input: {given}. Output: {do}. {notes}\n\nExample input: {x}\nExample output: {y}",
    "Given {given}, {do}. {notes}\n\n{x}\n=> {y}",
    "{do}. {notes}\n\ninput: {x}\noutput: {y}\n\nDo the same for other inputs.",
    "Q: {given}\nA: {do}. {notes}\n\nQ: {x}\nA: {y}",
)
LAZY = (
    "{do}, input is {given}. {notes}",
    "u get {given}, {do}. {notes} thx",
    "{given} comes in, {do}. {notes}",
    "need this: {do}. its {given}. {notes}",
    "can u {do}? i have {given}. {notes}",
    "just {do} pls ({given}). {notes}",
    "got {given}, want u to {do}. {notes} ty",
    "ok so {do}, u always get {given}. {notes}",
    "hey, {do} for me, input: {given}. {notes}",
)
ENDINGS = (
    "", "", "", "", "\nanswer only", "\nreturn only the result", ", nothing else",
    " – no explanation", "\noutput: just that", " (only the answer)",
)  # fmt: skip
FIELDS = (
    ("input", "task", "rules"), ("INPUT", "DO", "NOTE"), ("given", "return", "mind"),
    ("args", "does", "remarks"), ("in", "out", "also"), ("Input", "Instruction", "Constraints"),
    ("source", "transform", "details"), ("data", "job", "hint"),
)  # fmt: skip
LINES = ("{}: {}", "{} = {}", "- {}: {}", "**{}**: {}", "{}\n  {}", "[{}] {}", "# {}\n{}")
PAGES = (
    "---\nname: {name}\ndescription: {Do}.\n---\n\nInput: {given}\n\n{notes}\n\n"
    "# Examples\n\n{examples}",
    "# {Do}\n\nThe input is {given}. {notes}\n\n## Examples\n{examples}",
    "## Input\n{Given}\n\n## Output\n{Do}. {notes}\n\n## Samples\n{examples}",
    "SKILL {name}\nwhen: {given} comes in\nwhat: {do}. {notes}\n\n{examples}",
    "**{Do}**\n\n{notes}\n\nYou get {given}.\n\n{examples}",
    "{Do}. {notes} The input is {given}.\n\nSome pairs:\n{examples}",
    'def run(text: str) -> str:\n    """{Do}. {notes}\n\n    text: {given}\n    """\n\n{examples}',
)
SHOWN = ("{} -> {}", "{!r} => {!r}", "in: {}\nout: {}\n", "- {} → {}", ">>> run({!r})\n{!r}",
         "| {} | {} |", "input {}\noutput {}")  # fmt: skip
LONG = 400  # characters of three examples; where they have more, a page shows one
# What an instruction begins with, and what may be said for it.
OPENINGS = {
    "answer with ": ("answer with ", "return ", "give ", "reply with "),
    'answer "': ('answer "', 'say "', 'reply "', 'output "', 'return "', 'respond with "'),
    "write ": ("write ", "output ", "return ", "print "),
    "give ": ("give ", "return ", "output ", "tell me "),
    "name ": ("name ", "give ", "return ", "tell me "),
}


@dataclass(frozen=True)
class Phrases:
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
    phrases: Phrases,
    row: Callable[[random.Random], tuple[str, str]],
    labels: Iterable[str] = (),
) -> Variant:
    """The variant of these parameters; all that the phrases depend on must be among them."""
    name = f"{family}{parameters!r}"
    told = partial(_descriptions, name, family, phrases, row)
    return Variant(name, told, row, tuple(dict.fromkeys(labels)))


def _descriptions(
    name: str,
    family: str,
    phrases: Phrases,
    row: Callable[[random.Random], tuple[str, str]],
) -> tuple[str, ...]:
    style = random.Random(name)
    shown = dict(row(style) for _ in range(3))
    text, answer = next(iter(shown.items()))
    if sum(map(len, (*shown, *shown.values()))) > LONG:
        shown = {text: answer}
    notes = " ".join(phrases.notes)
    parts = {"given": phrases.given, "notes": notes, "x": text, "y": answer}
    formal, polite, listed_do, shown_do = (_varied(style, phrases.do) for _ in range(4))
    mark = style.choice(MARKS)
    points = (f"Input: {phrases.given}", capitalised(listed_do), *phrases.notes)
    framed = (
        style.choice(FORMAL).format(do=capitalised(formal), **parts),
        style.choice(POLITE).format(do=polite, **parts),
        style.choice(HEADINGS) + "\n".join(mark + point for point in points),
        style.choice(EXAMPLES).format(do=shown_do, **parts),
    )
    return (
        *(capitalised(_tidy(text)) for text in framed),
        _tidy(_page(style, family, phrases, shown)),
        phrases.terse + style.choice(ENDINGS),
        _tidy(style.choice(LAZY).format(do=_varied(style, phrases.do), **parts)),
        _fields(style, phrases),
    )


def _fields(style: random.Random, phrases: Phrases) -> str:
    """What there is, what to do and what else to know, as lines or as JSON."""
    values = (phrases.given, _varied(style, phrases.do), " ".join(phrases.notes))
    fields = {
        name: value for name, value in zip(style.choice(FIELDS), values, strict=True) if value
    }
    if style.random() < 0.35:
        return json.dumps(fields, ensure_ascii=False, indent=style.choice((None, 2)))
    line = style.choice(LINES)
    return "\n".join(line.format(name, value) for name, value in fields.items())


def _page(style: random.Random, family: str, phrases: Phrases, shown: Mapping[str, str]) -> str:
    """A page with examples inside."""
    do, line = _varied(style, phrases.do), style.choice(SHOWN)
    return style.choice(PAGES).format(
        name=family.replace("_", "-"),
        given=phrases.given,
        Given=capitalised(phrases.given),
        do=do,
        Do=capitalised(do),
        notes=" ".join(phrases.notes),
        examples="\n".join(line.format(*pair) for pair in shown.items()),
    )


def _varied(style: random.Random, do: str) -> str:
    """The instruction with another verb at its beginning, where OPENINGS knows one."""
    for opening, others in OPENINGS.items():
        if do.startswith(opening):
            return style.choice(others) + do.removeprefix(opening)
    return do


def capitalised(text: str) -> str:
    """The text with a capital first letter."""
    return text[0].upper() + text[1:]


def _tidy(text: str) -> str:
    """The text without the spaces and lines that empty notes leave."""
    lines = "\n".join(line.rstrip() for line in text.splitlines())
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"(?<=\S)  +", " ", lines)).strip()


def listed(items: Iterable[str], last: str = "and") -> str:
    """Items as a sentence lists them: "a, b and c"."""
    *head, tail = items
    return f"{', '.join(head)} {last} {tail}" if head else tail
