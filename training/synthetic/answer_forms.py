"""Forms of an answer, such as JSON or capitals, and what can be made of it, such as its length."""

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Style = Callable[[str], str]
SHORT = 24  # characters of an answer that is read letter by letter
MOST = 0.8  # a task's commonest answer has a smaller share

_KEYS = ("label", "topic", "class", "answer", "category", "type", "result", "output", "value")
_MARKS = (
    ("double quotes", '"', '"'), ("single quotes", "'", "'"), ("square brackets", "[", "]"),
    ("round brackets", "(", ")"), ("angle brackets", "<", ">"), ("curly brackets", "{", "}"),
    ("backticks", "`", "`"), ("double asterisks", "**", "**"), ("arrows", ">>", "<<"),
)  # fmt: skip
_FIRST = ("Answer:", "Result:", "=>", "->", "-", "*", "#", "A:", "The answer is", "Output:", ">")
PARTS: tuple[tuple[str, Style], ...] = (
    ("the first word, with any punctuation", lambda text: (text.split() or [""])[0]),
    ("the last word, with any punctuation", lambda text: (text.split() or [""])[-1]),
    ("the first two words, with any punctuation", lambda text: " ".join(text.split()[:2])),
    ("the number of words", lambda text: str(len(text.split()))),
)


@dataclass(frozen=True)
class AnswerForm:
    """How an answer is to look, or what is to be made of it.

    Attributes:
        says: an imperative in lower case without a full stop.
        style: from an answer to what is written.
    """

    says: str
    style: Style


def drawn_form(rng: random.Random, words: Sequence[str]) -> AnswerForm:
    """A form that keeps the whole answer.

    Args:
        words: answers, one or more; one of them can be shown in it.
    """
    kinds = (_json, _json, _json_list, _between, _between, _after, _after, _keyed, _tagged)
    if any(word.upper() != word for word in words):
        kinds = (*kinds, _capitals)
    return rng.choice(kinds)(rng, rng.choice(words))


def _json(rng: random.Random, word: str) -> AnswerForm:
    key = rng.choice(_KEYS)

    def style(text: str) -> str:
        return json.dumps({key: text}, ensure_ascii=False)

    says = (
        f"answer as JSON like this: {style(word)}",
        f'answer as JSON with the field "{key}"',
        f'return a JSON object whose only key is "{key}" and whose value is the answer, a string',
        f"output format: {json.dumps({key: '<answer>'})}",
        f"the reply has to be valid JSON, one string field called {key}",
    )
    return AnswerForm(rng.choice(says), style)


def _json_list(rng: random.Random, word: str) -> AnswerForm:
    def style(text: str) -> str:
        return json.dumps([text], ensure_ascii=False)

    says = (
        f"answer as a JSON list like this: {style(word)}",
        "return a JSON array with the answer as its only string",
        'write the answer as a list of one string in double quotes, as in ["..."]',
    )
    return AnswerForm(rng.choice(says), style)


def _between(rng: random.Random, word: str) -> AnswerForm:
    name, left, right = rng.choice(_MARKS)
    says = (
        f"put the answer in {name}, as in {left}{word}{right}",
        f"write the answer between {name}: {left}...{right}",
        f"{left} comes directly before the answer, {right} directly after it",
    )
    return AnswerForm(rng.choice(says), lambda text: f"{left}{text}{right}")


def _after(rng: random.Random, word: str) -> AnswerForm:
    key = rng.choice(_KEYS)
    first = rng.choice((*_FIRST, f"{key}:", f"{key.capitalize()}:", f"{key} ="))
    says = (
        f'write "{first}", a space and then the answer',
        f"write the answer after what you see in front of it here: {first} {word}",
        f'begin the reply with "{first} " and go on with the answer',
    )
    return AnswerForm(rng.choice(says), lambda text: f"{first} {text}")


def _keyed(rng: random.Random, word: str) -> AnswerForm:
    key, link = rng.choice(_KEYS), rng.choice(("=", ":", "->", "/"))
    says = (f"answer in the form {key}{link}{word}", f"answer in the form {key}{link}<answer>")
    return AnswerForm(rng.choice(says), lambda text: f"{key}{link}{text}")


def _tagged(rng: random.Random, word: str) -> AnswerForm:
    key = rng.choice([key for key in _KEYS if key != "answer"])  # <answer> stands for an answer
    says = (
        f"enclose the answer in tags: <{key}>{word}</{key}>",
        f"wrap the answer in <{key}> and </{key}>",
    )
    return AnswerForm(rng.choice(says), lambda text: f"<{key}>{text}</{key}>")


def _capitals(rng: random.Random, _: str) -> AnswerForm:
    says = ("write the answer in capitals", "all letters of the answer must be upper case")
    return AnswerForm(rng.choice(says), str.upper)


def drawn_making(rng: random.Random, answers: Sequence[str]) -> AnswerForm | None:
    """What can be made of a task's answers; None where nothing changes most of them.

    It leaves no answer empty, a quarter of the different ones different, and none nearly always
    right. Letters are looked at only where answers are short.
    """
    short = max(map(len, answers)) <= SHORT
    kinds = _MAKINGS + (_SHORT if short else ())
    for says, style in rng.sample(kinds, len(kinds)):
        made = [style(answer) for answer in answers]
        same = sum(a == b for a, b in zip(made, answers, strict=True))
        counts = Counter(made)
        enough = len(counts) >= max(2, len({*answers}) / 4)
        if all(made) and enough and max(counts.values()) < MOST * len(made) > 2 * same:
            return AnswerForm(rng.choice(says), style)
    return None


def _letters(text: str) -> str:
    return str(len(re.findall("[a-zA-Z]", text)))


_MAKINGS: tuple[tuple[tuple[str, ...], Style], ...] = (
    *(
        ((f"of the answer, write only {says}", f"instead of the answer itself give {says} of it"),
         style)
        for says, style in PARTS
    ),
    (("put a hyphen in the place of every space of the answer",
      "write the answer with hyphens instead of spaces"), lambda text: text.replace(" ", "-")),
    (("write the words of the answer in reverse order",
      "turn the order of the answer's words around"), lambda text: " ".join(text.split()[::-1])),
    (("write the answer in small letters", "lower case only"), str.lower),
    (("write the answer in capital letters", "THE ANSWER HAS TO BE IN CAPITALS"), str.upper),
)  # fmt: skip
_SHORT: tuple[tuple[tuple[str, ...], Style], ...] = (
    (("write the answer backwards, letter by letter", "reverse the letters of the answer"),
     lambda text: text[::-1]),
    (("count the letters of the answer and write that number instead",
      "give the number of letters a to z in the answer, not the answer"), _letters),
    (("write only the first letter of the answer", "just the answer's first character"),
     lambda text: text[:1]),
    (("leave out a, e, i, o and u when you write the answer",
      "drop the vowels of the answer (a, e, i, o, u)"),
     lambda text: re.sub("[aeiouAEIOU]", "", text)),
    (("write the answer twice, with a space between",
      "say the answer two times, separated by a space"), lambda text: f"{text} {text}"),
    (("put a dot after every character of the answer",
      "follow each character of the answer with a dot"),
     lambda text: "".join(f"{sign}." for sign in text)),
)  # fmt: skip
