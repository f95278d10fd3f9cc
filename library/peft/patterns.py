"""The patterns of a config: their values by name, and a bound on what matching them costs.

Python's engine tries every way in which a name can be cut among an expression's repeats. With k
repeats of something that matches in one way only, a name of n characters can be cut in
(n + k choose k) ways. A repeat before a word ends where the word occurs, which is far fewer.
Alternatives that do not exclude each other multiply the ways, and so does what stands in a
look-around. Repeats of what matches in several ways, and back references, have no such bound.
"""

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from library.peft.safetensors_file import BadFile

MAX_STEPS = 2 * 10**8  # a few seconds
MAX_PATTERN = 2**16
MAX_DEPTH = 20  # of groups
_TOKEN = re.compile(
    r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]"  # an escape, a set of characters
    r"|\(\?(?:[:=!]|<[=!])|\(\??|[)|]"  # a group that is taken, any other
    r"|[*+?]|\{\d*,?\d*\}|.",
    re.DOTALL,
)
_LOOK_AROUND = ("(?=", "(?!", "(?<=", "(?<!")
_WORD = re.compile(r"[\w-]|\\[^\w]")  # one character that stands for itself


def require_bounded(config: dict[str, Any], names: Collection[str]) -> None:
    """Raise BadFile unless all of a config's names and expressions can be held to all `names`."""
    longest = max((len(name) for name in names), default=0)
    steps = 0
    for key in ("target_modules", "exclude_modules", "layers_pattern"):
        value = config.get(key) or []
        if isinstance(value, str):
            steps += _steps(value, names) * (longest if key == "layers_pattern" else 1)
        elif key == "layers_pattern":
            steps += sum(_steps(pattern, names) * longest for pattern in value)
        else:
            steps += 20 * len(value)  # a comparison takes as long as about 20 steps
    for key, passes in (("rank_pattern", 1), ("alpha_pattern", 3)):  # one for each server's scale
        patterns = config.get(key) or {}
        steps += sum(_steps(pattern, names) * longest * passes for pattern in patterns)
    if steps * len(names) > MAX_STEPS:
        raise BadFile("too-costly", "the config's expressions would take too long to match")


def rank_in(config: Mapping[str, Any], name: str) -> Any:
    """The rank that a config gives a module."""
    return _by_pattern(config.get("rank_pattern"), name, config.get("r", 8))


def alpha_in(config: Mapping[str, Any], name: str) -> Any:
    """The alpha that a config gives a module."""
    return _by_pattern(config.get("alpha_pattern"), name, config.get("lora_alpha", 8))


def targeted_as(name: str) -> str:
    """The module whose name decides on one: an nn.MultiheadAttention's, of its out_proj."""
    return name.removesuffix(".base_layer.out_proj")


def _by_pattern(patterns: Mapping[str, Any] | None, name: str, default: Any) -> Any:
    """The value of the first pattern that a name ends with (peft.utils.other.get_pattern_key)."""
    name = targeted_as(name)
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            return value
    return default


class _Unbounded(Exception):
    pass


@dataclass
class _Cost:
    """The ways in which a part of an expression can match.

    Attributes:
        repeats: how many repeats a name is cut among.
        branches: ways that do not depend on the name's length.
        looks: steps inside look-arounds, each time they are reached.
        scans: how many searches for a word there are, of a name's length of steps each.
        words: the texts that the part matches, if none of them begins another.
    """

    repeats: int = 0
    branches: int = 1
    looks: int = 1
    scans: int = 0
    words: tuple[str, ...] = ()

    def steps(self, length: int) -> int:
        ways = math.comb(length + self.repeats, self.repeats) * self.branches
        return ways * self.looks * (1 + self.scans * length)


def _steps(pattern: str, names: Collection[str]) -> int:
    """A bound on the ways in which one of `names` can be matched. Raises BadFile."""
    try:
        if len(pattern) > MAX_PATTERN:
            raise _Unbounded
        parser = _Parser(iter([*_TOKEN.findall(pattern), ")"]), names)
        return sum(part.steps(parser.longest) for part in parser.alternatives(MAX_DEPTH))
    except _Unbounded as error:
        message = f"the expression {pattern[:80]!r} may never finish"
        raise BadFile("too-costly", message) from error


class _Parser:
    """Reads an expression's tokens once, from left to right."""

    def __init__(self, tokens: Iterator[str], names: Collection[str]) -> None:
        self.tokens, self.names = tokens, names
        self.longest = max((len(name) for name in names), default=0)

    def alternatives(self, depth: int) -> list[_Cost]:
        """The cost of each alternative up to the bracket that closes the group."""
        if depth == 0:
            raise _Unbounded
        sequences: list[list[_Cost]] = [[]]
        repeated = False  # whether the last token was a quantifier
        for token in self.tokens:
            if repeated and token in "?+":  # lazy or possessive: the same ways
                repeated = False
                continue
            repeated = token in "*+?" or (token[0] == "{" and len(token) > 1)
            if repeated:
                sequences[-1].append(_repeated(_last(sequences[-1]), token))
            elif token == ")":
                return [self._sequence(parts) for parts in sequences]
            elif token == "|":
                sequences.append([])
            elif token[0] == "(":
                sequences[-1].append(self._group(token, self.alternatives(depth - 1)))
            elif re.match(r"\\[1-9]", token):
                raise _Unbounded
            else:
                sequences[-1].append(_Cost(words=(token[-1],) if _WORD.fullmatch(token) else ()))
        raise _Unbounded  # brackets that do not fit together

    def _sequence(self, parts: Sequence[_Cost]) -> _Cost:
        plain = bool(parts) and all(len(part.words) == 1 for part in parts)
        total = _Cost(words=("".join(part.words[0] for part in parts),) if plain else ())
        for position, part in enumerate(parts):
            words = _first_words(parts[position + 1 :])
            if part.repeats == part.branches == 1 and words != ("",):
                total.branches *= max(1, self._occurrences(words))
                total.scans += 1
            else:
                total.repeats += part.repeats
                total.branches *= part.branches
            total.looks *= part.looks
            total.scans += part.scans
        return total

    def _occurrences(self, words: tuple[str, ...]) -> int:
        """The most positions in any name where one of the words begins."""
        pattern = re.compile(f"(?={'|'.join(map(re.escape, words))})")
        return max((len(pattern.findall(name)) for name in self.names), default=0)

    def _group(self, opening: str, parts: list[_Cost]) -> _Cost:
        if opening in _LOOK_AROUND:
            return _Cost(looks=1 + sum(part.steps(self.longest) for part in parts))
        if opening == "(?":  # flags, names and conditions
            raise _Unbounded
        words = sorted(part.words[0] for part in parts if part.words)
        clash = any(b.startswith(a) for a, b in pairwise(words))
        exclusive = len(words) == len(parts) and not clash
        return _Cost(
            repeats=max(part.repeats for part in parts),
            branches=1 if exclusive else sum(part.branches for part in parts),
            looks=math.prod(part.looks for part in parts),
            scans=sum(part.scans for part in parts),
            words=tuple(words) if exclusive else (),
        )


def _first_words(parts: Sequence[_Cost]) -> tuple[str, ...]:
    """The texts that a sequence begins with, one of them; as long as they can be."""
    text = ""
    for part in parts:
        if len(part.words) != 1:
            return tuple(text + word for word in part.words or ("",))
        text += part.words[0]
    return (text,)


def _last(parts: list[_Cost]) -> _Cost:
    if not parts:
        raise _Unbounded  # a quantifier of nothing, which Python does not take
    return parts.pop()


def _repeated(part: _Cost, quantifier: str) -> _Cost:
    if quantifier == "?":
        return _Cost(part.repeats, part.branches + 1, part.looks, part.scans)
    if part.repeats or part.branches > 1:
        raise _Unbounded
    return _Cost(1, 1, part.looks, part.scans)
