"""Canonical JSON: held to the rfc8785 package, so that identities can be recomputed by anyone."""

import hashlib
import math
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from library.canonical import canonical_json, digest, file_digest, json_digest

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
LEAVES = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | FLOATS | TEXT
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5),
    max_leaves=20,
)


@given(VALUES)
@example({"\ue000": 1, "\U0001f600": 2, "": 3, "é": 4})  # UTF-16 order is not code point order
@example({"control": '\x00\x1f\x7f\b\t\n\f\r"\\/\u2028'})
def test_equals_the_rfc8785_package(value: Any) -> None:
    assert canonical_json(value) == rfc8785.dumps(value)


@given(FLOATS)
@example(1e21)
@example(1e20)
@example(123456789012345680000.0)
@example(1e-6)
@example(1e-7)
@example(-1.5e-9)
@example(5e-324)
@example(1.7976931348623157e308)
@example(-0.0)
@example(100.0)
@example(0.5)
@example(-0.012)
def test_numbers_are_printed_as_ecmascript_does_and_read_back(value: float) -> None:
    text = canonical_json(value)
    assert text == rfc8785.dumps(value)
    assert float(text) == value


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 2**53, -(2**53)])
def test_numbers_that_json_cannot_hold_are_refused(value: float) -> None:
    with pytest.raises(ValueError):
        canonical_json({"deep": [value]})


@pytest.mark.parametrize("value", [{1: "a"}, {None: 1}, b"bytes", {1, 2}, Path("x"), 1j])
def test_other_types_are_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        canonical_json([value])


def test_digests_are_sha256_of_the_bytes(tmp_path: Path) -> None:
    content = b"content" * 100_000
    (tmp_path / "file").write_bytes(content)
    expected = hashlib.sha256(content).hexdigest()
    assert digest(content) == file_digest(tmp_path / "file") == expected
    assert json_digest({"b": 1, "a": 1.0}) == hashlib.sha256(b'{"a":1,"b":1}').hexdigest()
