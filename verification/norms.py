"""Singular values of every ΔW straight from a file's bytes, in the time that a request has.

σ² are the eigenvalues of Λ^½ Vᵀ (BᵀB) V Λ^½ with A·Aᵀ = V Λ Vᵀ: two Gram matrices of the rank's
size, in float64. What is squared loses half of the digits, so singular values below 1e-8 of the
largest are noise; norms, stable ranks and entropies, which go by σ², do not notice.
`verification.spectrum` has the exact ones, through QR.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from library.peft_io import PREFIX
from verification.format_hook import factors
from verification.header import Entry
from verification.servers import scale
from verification.subject import Subject

Shape = tuple[int, ...]
_KINDS = {"BF16": "<u2", "F16": "<f2", "F32": "<f4", "F64": "<f8"}


def singular_values_of(subject: Subject) -> tuple[list[str], Float[Tensor, "1 sites rank"]]:
    """Names of the modules, sorted, and the singular values of their ΔW, descending.

    The scale that PEFT applies is in them. `rank` is the largest; below it there are zeros. Raises
    BadFile.
    """
    modules = factors(subject)
    alike: dict[tuple[Shape, Shape], list[str]] = defaultdict(list)
    for name, shapes in modules.items():
        alike[shapes].append(name)
    names = list(modules)
    place = {name: position for position, name in enumerate(names)}
    found = torch.zeros(1, len(names), max(a[0] for a, _ in alike), dtype=torch.float64)
    for (a, b), group in alike.items():
        grams = [_gram(subject, group, half, shape) for half, shape in (("A", a), ("B", b))]
        values = _singular(*grams) * _scales(subject, group, a[0])[:, None]
        found[0, [place[name] for name in group], : a[0]] = values
    return names, found


def _singular(
    gram_a: Float[Tensor, "n r r"], gram_b: Float[Tensor, "n r r"]
) -> Float[Tensor, "n r"]:
    energy, v = torch.linalg.eigh(gram_a)
    half = v * energy.clamp_min(0.0).sqrt()[:, None, :]
    squares = torch.linalg.eigvalsh(half.mT @ gram_b @ half)
    return squares.clamp_min(0.0).sqrt().flip(-1)


def _gram(
    subject: Subject, names: Sequence[str], half: str, shape: Shape
) -> Float[Tensor, "n r r"]:
    """A·Aᵀ or BᵀB of modules whose factors are of one shape."""
    entries = subject.header.tensors
    found = [entries[_key(name, half, entries)] for name in names]
    factor = _stacked(subject.files[subject.weights], found)
    if half == "A":
        factor = factor.reshape(len(names), shape[0], -1)
        return factor @ factor.mT
    factor = factor.reshape(len(names), shape[0], shape[1])
    return factor.mT @ factor


def _key(name: str, half: str, entries: dict[str, Entry]) -> str:
    key = f"{PREFIX}{name}.lora_{half}.weight"
    return key if key in entries else f"{PREFIX}{name}.lora_embedding_{half}"


def _stacked(content: bytes, entries: Sequence[Entry]) -> Float[Tensor, "n elements"]:
    """Tensors of one size as rows in float64."""
    dtypes = {entry.dtype for entry in entries}
    if len(dtypes) > 1:
        return torch.cat([_stacked(content, [entry]) for entry in entries])
    view, kind = memoryview(content), _KINDS[dtypes.pop()]
    raw = np.stack([np.frombuffer(view[entry.start : entry.end], kind) for entry in entries])
    if kind == "<u2":  # bfloat16: the upper half of a float32
        raw = (raw.astype("<u4") << 16).view("<f4")
    return torch.from_numpy(raw).double()


def _scales(subject: Subject, names: Sequence[str], rank: int) -> Float[Tensor, " n"]:
    config = subject.config or {}
    return torch.tensor([scale("peft", config, name, rank) for name in names]).double().abs()
