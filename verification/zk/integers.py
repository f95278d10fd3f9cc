"""The integers that proofs are about: the grid, products, challenges and folding.

A value v stands for round(v·2²⁴), half away from zero, as ezkl rounds. That is exact for float16;
a bfloat16 below 2⁻¹⁷ may be off by up to 2⁻²⁵, which every report states. Outputs carry the sum of
three scales: y·2⁻⁷² is the module's ΔW·x.
"""

import hashlib

import torch
from jaxtyping import Float
from torch import Tensor

from library.canonical import canonical_json, json_digest
from verification.zk.child import FRACTION_BITS, Rows
from verification.zk.errors import ChallengeError, TooLarge

PROTOCOL = "lorasmith-zk-1"
FOLD_BITS = 32  # a wrong row goes unseen with probability 2⁻³² a try; ezkl has 127 bits for all
CIRCUIT_BITS = 126
INPUT_BITS = 40  # values below 2¹⁶, more than any float16 has
COLUMN_BITS = 16  # what a product of two weights with 8 significant bits each has


def on_grid(values: Float[Tensor, "m n"]) -> Rows:
    """round(v·2²⁴), half away from zero."""
    scaled = values.double() * 2**FRACTION_BITS
    return (scaled.sign() * (scaled.abs() + 0.5).floor()).long().tolist()


def off_grid(values: Float[Tensor, "m n"]) -> float:
    """The largest difference between a value and what stands for it."""
    back = torch.tensor(on_grid(values), dtype=torch.float64) / 2**FRACTION_BITS
    return float((values.double() - back).abs().max())


def product(x: Rows, a: Rows, b: Rows) -> Rows:
    """X·Aᵀ·Bᵀ, exactly: X `(rows, in)`, A `(rank, in)`, B `(out, rank)`."""
    hidden = [[_dot(row, column) for column in a] for row in x]
    return [[_dot(row, column) for column in b] for row in hidden]


def require_inputs(rows: Rows) -> None:
    """Raise ChallengeError for numbers that no activation has."""
    if any(abs(value) >> INPUT_BITS for row in rows for value in row):
        raise ChallengeError(
            f"inputs are below 2^{INPUT_BITS} (values below {1 << INPUT_BITS - FRACTION_BITS:,})"
        )


def columns(row: list[int]) -> int:
    """The number of ΔW's columns that a chosen row can hold side by side in its output.

    With x_i = 2^(16·i), an entry of the output is a number whose digits to base 2¹⁶ are entries of
    ΔW, if these have no more than 16 significant bits; they have no less where weights have eight.
    """
    bits = max(abs(value) for value in row).bit_length()
    return max(1, -(-bits // COLUMN_BITS))


def largest_fold(rows: Rows) -> list[int]:
    """Bounds of |Σ c_i·row_i| over all coefficients that `folding` can give."""
    most = 1 if len(rows) == 1 else (1 << FOLD_BITS) - 1
    return [most * sum(map(abs, column)) for column in zip(*rows, strict=True)]


def require_in_reach(x: list[int], a: Rows, b: Rows) -> None:
    """Raise TooLarge if a sum in the circuit could exceed what ezkl computes with (i128)."""
    hidden = [sum(abs(v * w) for v, w in zip(x, column, strict=True)) for column in a]
    largest = max(sum(v * abs(w) for v, w in zip(hidden, column, strict=True)) for column in b)
    if max(largest, *hidden) >= 1 << CIRCUIT_BITS:
        raise TooLarge(
            "inputs and weights are too large together to be proved: the sums exceed 126 bits"
        )


def integers_digest(rows: Rows) -> str:
    """SHA-256 over integers of any size."""
    return json_digest([[str(value) for value in row] for row in rows])


def hashed_row(manifest: str, module: str, nonce: str, width: int) -> list[int]:
    """A challenge that nobody chose: from the manifest's digest, the module and a nonce.

    24 bits a value, uniform in [−0.5, 0.5) on the grid.
    """
    stream = _stream(["challenge", manifest, module, nonce], 3 * width)
    return [int.from_bytes(stream[i : i + 3]) - (1 << 23) for i in range(0, 3 * width, 3)]


def sampled(manifest: str, nonce: str, modules: list[str], count: int) -> list[str]:
    """`count` of the modules, by the same hash, in their order."""
    ranked = sorted(modules, key=lambda name: _stream(["sample", manifest, nonce, name], 32))
    selected = set(ranked[:count])
    return [name for name in modules if name in selected]


def folding(statement: str, rows: int) -> list[int]:
    """Coefficients that fold several rows into one; a single row stays as it is.

    `statement` must cover X, Y and a seed that was drawn after both were fixed.
    """
    if rows == 1:
        return [1]
    size = FOLD_BITS // 8
    stream = _stream(["fold", statement], size * rows)
    return [int.from_bytes(stream[i : i + size]) for i in range(0, size * rows, size)]


def fold(rows: Rows, coefficients: list[int]) -> list[int]:
    """Σ c_i·row_i."""
    return [_dot(list(column), coefficients) for column in zip(*rows, strict=True)]


def tag(statement: str) -> list[int]:
    """240 bits of a statement's digest, as two numbers that ezkl can hold."""
    content = bytes.fromhex(statement)
    return [int.from_bytes(content[:15]), int.from_bytes(content[15:30])]


def _dot(first: list[int], second: list[int]) -> int:
    return sum(v * w for v, w in zip(first, second, strict=True))


def _stream(about: list[str], size: int) -> bytes:
    return hashlib.shake_256(canonical_json([PROTOCOL, *about])).digest(size)
