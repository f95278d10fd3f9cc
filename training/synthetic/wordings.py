"""Descriptions of classification in words: templates of many registers, and lists of answers."""

import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from training.synthetic.templates import TEMPLATES, TURNED


@dataclass(frozen=True)
class Choice:
    """An answer and what it stands for.

    Attributes:
        word: the answer, to the letter.
        meanings: several ways to say what it stands for; none where the word says it.
    """

    word: str
    meanings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Brief:
    """All that a description of a task has to say.

    Attributes:
        thing, things: what an input is, such as "message" and "messages".
        goal: what to do, as an imperative in lower case without a full stop.
        choices: the answers.
        notes: further rules, written as the goal is.
        form: how the answer is to look, written as the goal is; empty for the choice alone.
        examples: inputs and answers that a page may show.
    """

    thing: str
    things: str
    goal: str
    choices: tuple[Choice, ...]
    notes: tuple[str, ...] = ()
    form: str = ""
    examples: tuple[tuple[str, str], ...] = ()


INLINE: tuple[Callable[[str, str], str], ...] = (
    lambda word, meaning: f"{word} ({meaning})",
    lambda word, meaning: f"{word} = {meaning}",
    lambda word, meaning: f"{word}: {meaning}",
    lambda word, meaning: f"{word} – {meaning}",
    lambda word, meaning: f"{word}, meaning {meaning}",
    lambda word, meaning: f"{word} [{meaning}]",
    lambda word, meaning: f"{meaning} -> {word}",
    lambda word, meaning: f"{meaning} is {word}",
)
BLOCK: tuple[Callable[[str, str], str], ...] = (
    lambda word, meaning: f"- {word}: {meaning}",
    lambda word, meaning: f"* {word} ({meaning})",
    lambda word, meaning: f"{word} = {meaning}",
    lambda word, meaning: f"| {word} | {meaning} |",
    lambda word, meaning: f"{word}\n    {meaning}",
    lambda word, meaning: f"- {meaning} → {word}",
    lambda word, meaning: f"• {word} – {meaning}",
    lambda word, meaning: f"{meaning} => {word}",
)
Slots = dict[str, Callable[[], str]]
QUOTES = ("{}", "{}", "{}", '"{}"', "'{}'", "`{}`", "“{}”")
WORD_LISTS = ("|", " | ", " / ", "/", ", ", ",", " or ", "; ")
_FORMS = (
    "return only {}",
    "output {} only",
    "{}, nothing more",
    "reply with {} only",
    "write only {}, nothing else",
    "reply with just {}",
    "give {} and no explanation",
    "no other words than {}",
    "respond with {}, exactly as it is written here",
)
_NOUNS = ("the answer", "the label", "one of these", "the right one")


def worded(brief: Brief, register: str, rng: random.Random) -> str:
    """A complete description of a task in a register, one of TEMPLATES."""
    return filled(rng.choice(TEMPLATES[register]), brief, rng)


def filled(template: str, brief: Brief, rng: random.Random) -> str:
    """A template with what a brief says."""
    form = brief.form or rng.choice(_FORMS).format(rng.choice(_NOUNS))
    notes = [*brief.notes, form]
    pairs = [(c.word, rng.choice(c.meanings) if c.meanings else "") for c in brief.choices]
    quote = rng.choice(QUOTES)
    quoted = [(quote.format(word), meaning) for word, meaning in pairs]
    slots: Slots = _note_slots(notes) | {
        "thing": lambda: brief.thing,
        "things": lambda: brief.things,
        "goal": lambda: brief.goal,
        "Goal": lambda: _capitalised(brief.goal),
        "inline": lambda: _inline(quoted, rng),
        "block": lambda: _block(quoted, rng),
        "words": lambda: rng.choice(WORD_LISTS).join(word for word, _ in quoted),
        "explained": lambda: _explained(pairs, rng),
        "list": lambda: _json_of([word for word, _ in pairs]),
        "json": lambda: _json(pairs),
        "examples": lambda: _examples(brief.examples, rng),
    }
    return _fill(template, slots)


def changed(template: str, text: str, notes: Sequence[str]) -> str:
    """A template of CHANGED with the description of a task and further rules for it."""
    ended = text if text[-1:] in "?!.:)”’\"'" else f"{text}."
    return _fill(template, _note_slots(notes) | {"text": lambda: ended})


def turned_round(text: str, rng: random.Random) -> str:
    """The description of the task that leads from the answers of a described one to its inputs."""
    return _fill(rng.choice(TURNED), {"text": lambda: text})


def _note_slots(notes: Sequence[str]) -> Slots:
    return {
        "rules": lambda: " ".join(f"{_capitalised(note)}." for note in notes),
        "lazy": lambda: ". ".join(notes),
        "bare": lambda: ", ".join(notes),
        "bullets": lambda: "\n".join(f"- {note}" for note in notes),
    }


def _fill(template: str, slots: Slots) -> str:
    slots |= {f"{name}!": lambda name=name: _json_of(slots[name]()) for name in tuple(slots)}
    text = re.sub(r"<(\w+!?)>", lambda match: slots[match[1]](), template)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def _inline(pairs: Sequence[tuple[str, str]], rng: random.Random) -> str:
    style = rng.choice(INLINE)
    parts = [style(word, meaning) if meaning else word for word, meaning in pairs]
    if len(parts) < 2 or rng.random() < 0.3:
        return rng.choice((" / ", ", ", "; ", " | ")).join(parts)
    comma = "; " if any("," in part for part in parts) else ", "
    return f"{comma.join(parts[:-1])} {rng.choice(('or', 'or', 'and'))} {parts[-1]}"


def _block(pairs: Sequence[tuple[str, str]], rng: random.Random) -> str:
    style = rng.choice(BLOCK)
    return "\n".join(style(word, meaning) if meaning else f"- {word}" for word, meaning in pairs)


def _explained(pairs: Sequence[tuple[str, str]], rng: random.Random) -> str:
    """Lines that say what answers stand for; empty where the words say it."""
    style = rng.choice(("{}: {}", "{} = {}", "- {}: {}", "{} -> {}", "{} - {}", "* {} – {}"))
    return "\n".join(style.format(word, meaning) for word, meaning in pairs if meaning)


def _json(pairs: Sequence[tuple[str, str]]) -> str:
    """An object of answers and meanings, or a list where no answer has one."""
    if any(meaning for _, meaning in pairs):
        return _json_of(dict(pairs))
    return _json_of([word for word, _ in pairs])


def _json_of(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _examples(examples: Sequence[tuple[str, str]], rng: random.Random) -> str:
    style = rng.choice(
        ("{} → {}", "Input: {}\nOutput: {}", "- {} => {}", "in: {} | out: {}", "> {}\n{}")
    )
    return "\n".join(style.format(text, answer) for text, answer in examples)
