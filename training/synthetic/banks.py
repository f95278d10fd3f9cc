"""Banks of utterances: short texts by topic, one topic a line of banks/*.jsonl."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from library.files import require_present
from library.tasks.files import MalformedTask

BANKS = Path(__file__).with_name("banks")
MIN_UTTERANCES = 20
UNTRIMMED = "texts must not be empty, nor begin or end with spaces"  # a fault
_TEXTS, _LISTS = ("topic", "domain", "description"), ("names", "utterances")


@dataclass(frozen=True)
class Topic:
    """What short texts can be about.

    Attributes:
        topic: its plain name.
        domain: the field that it belongs to, such as "retail".
        names: two or more names by which it can go; those of up to three words can be labels.
        description: its meaning, as a part of a sentence.
        utterances: 20 or more different texts, each about this topic and no other of its domain.
    """

    topic: str
    domain: str
    names: tuple[str, ...]
    description: str
    utterances: tuple[str, ...]


def is_trimmed(text: Any) -> bool:
    """Whether something is a text that is not empty and has no spaces at its ends."""
    return isinstance(text, str) and bool(text) and text == text.strip()


def plain(text: str) -> str:
    """A text without case and with single spaces, for comparison."""
    return " ".join(text.casefold().split())


def read_topics(folder: Path = BANKS) -> tuple[Topic, ...]:
    """All topics of a folder's *.jsonl, sorted by domain, then topic.

    Raises:
        MissingPath: there is no such folder.
        MalformedTask: a line is no topic, or a topic or an utterance occurs twice.
    """
    require_present(folder)
    topics: dict[tuple[str, str], Topic] = {}
    holders: dict[str, str] = {}
    for path in sorted(folder.glob("*.jsonl")):
        lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
        for number, line in enumerate(lines, start=1):
            position = f"line {number}"
            topic = _topic(line, path, position)
            key = plain(topic.domain), plain(topic.topic)
            if key in topics:
                raise MalformedTask(path, position, f"the topic {topic.topic!r} is there already")
            topics[key] = topic
            for text in topic.utterances:
                other = holders.setdefault(plain(text), topic.topic)
                if other != topic.topic:
                    fault = f"the utterance {text!r} is one of {other!r}, too"
                    raise MalformedTask(path, position, fault)
    return tuple(topics[key] for key in sorted(topics))


def by_domain(topics: Sequence[Topic]) -> dict[str, tuple[Topic, ...]]:
    """The topics of each domain, in their order."""
    domains: dict[str, list[Topic]] = {}
    for topic in topics:
        domains.setdefault(topic.domain, []).append(topic)
    return {domain: tuple(some) for domain, some in domains.items()}


def _topic(line: str, path: Path, position: str) -> Topic:
    try:
        data = json.loads(line)
    except ValueError as error:
        raise MalformedTask(path, position, "this is not JSON") from error
    fault = _fault(data)
    if fault:
        raise MalformedTask(path, position, fault)
    lists = {name: tuple(data[name]) for name in _LISTS}
    return Topic(**{**data, **lists})


def _fault(data: Any) -> str:
    """What is wrong with a line's value; empty if nothing is."""
    if not isinstance(data, dict) or data.keys() != {*_TEXTS, *_LISTS}:
        return f"a topic has the fields {', '.join((*_TEXTS, *_LISTS))} and no others"
    if not all(isinstance(data[name], list) for name in _LISTS):
        return f"{' and '.join(_LISTS)} must be lists"
    for text in [*(data[name] for name in _TEXTS), *data["names"], *data["utterances"]]:
        if not is_trimmed(text):
            return f"{UNTRIMMED}: {text!r}"
    if len(data["names"]) < 2:
        return "a topic needs two names"
    utterances = {plain(text) for text in data["utterances"]}
    if len(utterances) < MIN_UTTERANCES or len(utterances) < len(data["utterances"]):
        return f"a topic needs {MIN_UTTERANCES} utterances, all of them different"
    return ""
