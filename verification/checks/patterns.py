"""Whether the regular expressions of a config can be run: some take longer than anyone waits.

Python's engine tries every way in which a name can be cut among the repeats. The bound below takes
only repeats of single characters; with k of them, a name of n characters can be cut in
(n + k choose k) ways. Repeated groups, look-around and back references have no such bound.
"""

import math
import re
from collections.abc import Collection
from itertools import pairwise
from typing import Any

from library.peft.safetensors_file import BadFile

MAX_STEPS = 2 * 10**8  # a few seconds
MAX_PATTERN = 2**16
_GROUP_REPEATED = re.compile(r"\)[*+{]")
_UNBOUNDED = re.compile(r"\(\?(?!:)|\\[1-9]")
_REPEAT = re.compile(r"[*+{?]")
_WORDS = re.compile(r"\((?:\?:)?((?:[\w|-]|\\[.-])+)\)")


def require_bounded(config: dict[str, Any], names: Collection[str]) -> None:
    """Raise BadFile unless all of a config's names and expressions can be held to all `names`."""
    longest = max((len(name) for name in names), default=0)
    steps = 0
    for key in ("target_modules", "exclude_modules", "layers_pattern"):
        value = config.get(key) or []
        if isinstance(value, str):
            steps += _steps(value, longest) * (longest if key == "layers_pattern" else 1)
        elif key == "layers_pattern":
            steps += sum(_steps(x, longest) * longest for x in value)
        else:
            steps += 20 * len(value)  # a comparison takes as long as about 20 steps
    for key, passes in (("rank_pattern", 1), ("alpha_pattern", 3)):  # one for each server's scale
        steps += sum(_steps(x, longest) * longest * passes for x in config.get(key) or {})
    if steps * len(names) > MAX_STEPS:
        raise BadFile("too-costly", "the config's expressions would take too long to match")


def _steps(pattern: str, length: int) -> int:
    """A bound on the ways in which a name of `length` can be matched. Raises BadFile."""
    if len(pattern) > MAX_PATTERN or _GROUP_REPEATED.search(pattern) or _UNBOUNDED.search(pattern):
        raise BadFile("too-costly", f"the expression {pattern[:80]!r} may never finish")
    return sum(_ways(part, length) for part in _alternatives(_without_words(pattern)))


def _ways(simple: str, length: int) -> int:
    repeats = len(_REPEAT.findall(re.sub(r"\(\?:|([*+}])\?", r"\1", simple)))
    return math.comb(length + repeats, repeats) << simple.count("|")


def _alternatives(pattern: str) -> list[str]:
    """The parts of a pattern between the bars that stand in no group."""
    parts, depth = [""], 0
    for char in pattern:
        depth += (char == "(") - (char == ")")
        if char == "|" and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return parts


def _without_words(pattern: str) -> str:
    """Groups of plain words of which none begins another match in one way: they become `%`."""

    def replaced(match: re.Match[str]) -> str:
        words = sorted(match[1].split("|"))
        clash = any(b.startswith(a) for a, b in pairwise(words))
        return match[0] if clash else "%"

    return _WORDS.sub(replaced, pattern)
