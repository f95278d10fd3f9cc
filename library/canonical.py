"""Canonical JSON (RFC 8785) and SHA-256 digests: equal content gives equal bytes on any machine.

Identity rests on this file alone, so it needs nothing but the standard library; the tests hold it
to the `rfc8785` package.
"""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

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
    sign = "-" if value < 0 else ""
    mantissa, exponent = f"{abs(value)!r}", 0
    if "e" in mantissa:
        mantissa, power = mantissa.split("e")
        exponent = int(power)
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + exponent - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0") or "0"
    if len(digits) <= point <= 21:
        return sign + digits + "0" * (point - len(digits))
    if 0 < point <= 21:
        return sign + digits[:point] + "." + digits[point:]
    if -6 < point <= 0:
        return sign + "0." + "0" * -point + digits
    tail = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{tail}e{'+' if point > 0 else '-'}{abs(point - 1)}"
