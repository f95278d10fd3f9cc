"""Magnitudes straight from a file's bytes: is every number finite, and does ΔW stay in float32?

Every server computes in float32 or less. What leaves it becomes infinite there, and NaN after that,
though the file holds finite numbers only.
"""

import numpy as np

from library.peft.readers import scale
from library.peft.safetensors_file import BadFile, Header, TensorEntry
from verification.artifact import Artifact
from verification.checks.norms import key_of, values

FLOAT32_MAX = float(np.finfo(np.float32).max)
_STEP = 2**24  # bytes at a time, so that a large file needs no second copy
# Of each dtype that a factor may have: its bits, and those of its exponent, which are all ones in
# NaN and infinity (IEEE 754). Without the sign, magnitudes are in the order of their bits.
_EXPONENT = {
    "BF16": ("<u2", 0x7F80),
    "F16": ("<u2", 0x7C00),
    "F32": ("<u4", 0x7F800000),
    "F64": ("<u8", 0x7FF0000000000000),
}


def require_finite(header: Header, content: bytes) -> float:
    """The largest magnitude; looks at neighbours of one dtype together.

    Raises BadFile if a value is NaN, or infinite in float32.
    """
    runs: list[TensorEntry] = []
    for entry in header.tensors.values():
        if runs and runs[-1].dtype == entry.dtype:
            runs[-1] = TensorEntry(entry.dtype, (), runs[-1].start, entry.end)
        else:
            runs.append(entry)
    top = max(largest(content, run) for run in runs)
    if top <= FLOAT32_MAX:
        return top
    for name, entry in header.tensors.items():
        if largest(content, entry) > FLOAT32_MAX:
            raise BadFile("not-finite", f"{name} holds NaN, infinity or more than float32 can hold")
    raise AssertionError("a run of tensors holds what none of them does")


def require_strength(artifact: Artifact, top: float) -> None:
    """Raise BadFile if scale·B, or ΔW by the bound rank·scale·max|A|·max|B|, can leave float32.

    Args:
        top: the largest magnitude in the file, which settles it for all but extreme ones.
    """
    config, pairs = artifact.config or {}, artifact.pairs
    rank = max(a[0] for a, _ in pairs.values())
    alphas = [config.get("lora_alpha", 8), *(config.get("alpha_pattern") or {}).values()]
    most = max(1.0, *(abs(float(alpha)) for alpha in alphas))
    if rank * most * max(top, 1.0) ** 2 <= FLOAT32_MAX:
        return
    entries, content = artifact.header.tensors, artifact.files[artifact.weights]
    for name, (shape, _) in pairs.items():
        factor = abs(scale("peft", config, name, shape[0]))
        a, b = (largest(content, entries[key_of(name, half, entries)]) for half in "AB")
        if not max(factor, factor * b, factor * a * b * shape[0]) <= FLOAT32_MAX:
            raise BadFile(
                "strength",
                f"{name}: scale {factor:.3g} times factors of up to {a:.3g} and {b:.3g} can be "
                "more than float32 can hold",
                module=name,
            )


def largest(content: bytes, entry: TensorEntry) -> float:
    """The largest magnitude in one tensor; infinity if one is NaN."""
    kind, mask = _EXPONENT[entry.dtype]
    unsigned = np.iinfo(kind).max >> 1
    top = np.zeros(1, dtype=kind)
    for offset in range(entry.start, entry.end, _STEP):
        piece = memoryview(content)[offset : min(entry.end, offset + _STEP)]
        top = np.maximum(top, (np.frombuffer(piece, dtype=kind) & top.dtype.type(unsigned)).max())
    if top[0] >= mask:
        return float("inf")
    return float(
        values(memoryview(top.tobytes()), TensorEntry(entry.dtype, (1,), 0, top.nbytes))[0]
    )
