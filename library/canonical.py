"""Canonical JSON (RFC 8785) and SHA-256 digests: equal content gives equal bytes on any machine.

Identity rests on this file alone, so it needs nothing but the standard library.
"""

import hashlib
import json
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

# Not the rfc8785 package: the core runs without it, and it raises ValueError for what JSON cannot
# hold by type, which is our TypeError. The tests hold the bytes to it.
_MAX_SAFE_INT = 2**53 - 1


def canonical_json(value: Any) -> bytes:
    """Serialise `value` (dicts, lists, strings, numbers, booleans, None) as RFC 8785 bytes.

    Raises:
        TypeError: for any other type, or a key that is not a string.
        ValueError: for NaN, infinities, and integers beyond ±(2**53 − 1).
    """
    return _encode(value).encode("utf-8")


def digest(data: bytes | memoryview) -> str:
    """SHA-256 of `data`, in lower-case hex."""
    return hashlib.sha256(data).hexdigest()


def json_digest(value: Any) -> str:
    """SHA-256 of the canonical JSON of `value`."""
    return digest(canonical_json(value))


def file_digest(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _encode(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, int):
        if abs(value) > _MAX_SAFE_INT:
            raise ValueError(f"{value} is too large for canonical JSON")
        return str(value)
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("canonical JSON takes string keys only")
        # RFC 8785 orders keys by UTF-16 code units, not by code points.
        keys = sorted(value, key=lambda key: key.encode("utf-16-be"))
        return "{" + ",".join(f"{_encode(key)}:{_encode(value[key])}" for key in keys) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(_encode(item) for item in value) + "]"
    raise TypeError(f"canonical JSON cannot hold a {type(value).__name__}")


def _number(value: float) -> str:
    """A double as ECMAScript prints it: Python's shortest digits, laid out otherwise."""
    if not math.isfinite(value):
        raise ValueError("canonical JSON cannot hold NaN or an infinity")
    if value == 0:
        return "0"
    # value = ±0.d₁d₂d₃… · 10^point, with the fewest digits that read back as the same double
    negative, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    sign, text = "-" * negative, "".join(map(str, digits))
    point = len(text) + int(exponent)
    if len(text) <= point <= 21:
        return sign + text + "0" * (point - len(text))
    if 0 < point <= 21:
        return sign + text[:point] + "." + text[point:]
    if -6 < point <= 0:
        return sign + "0." + "0" * -point + text
    tail = f".{text[1:]}" if len(text) > 1 else ""
    return f"{sign}{text[0]}{tail}e{point - 1:+d}"
