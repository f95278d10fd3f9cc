"""Singular values of every ΔW straight from a file's bytes, in the time that a request has.

σ² are the eigenvalues of Lᵀ(BᵀB)L with A·Aᵀ = L·Lᵀ: two Gram matrices of the rank's size, in
float64. What is squared loses half of the digits, so singular values below 1e-8 of the largest are
noise; norms, stable ranks and entropies, which go by σ², do not notice.
`verification.checks.spectrum` has the exact ones, through QR.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from library.peft.readers import scale
from library.peft.safetensors_file import TensorEntry
from library.peft.write import PREFIX
from verification.artifact import Artifact

_KINDS = {"BF16": "<u2", "F16": "<f2", "F32": "<f4", "F64": "<f8"}


def singular_values_of(artifact: Artifact) -> tuple[list[str], Float[Tensor, "1 sites rank"]]:
    """Names of the modules, sorted, and the singular values of their ΔW, descending.

    The scale that PEFT applies is in them. `rank` is the largest; below it there are zeros. Raises
    BadFile.
    """
    alike: dict[int, list[int]] = defaultdict(list)
    names, config = [], artifact.config or {}
    for position, (name, (a, _)) in enumerate(artifact.pairs.items()):
        names.append(name)
        alike[a[0]].append(position)
    singular = torch.zeros(1, len(names), max(alike), dtype=torch.float64)
    for rank, positions in alike.items():
        group = [names[position] for position in positions]
        scales = _scales(config, group, rank)
        values = _singular(*_grams(artifact, group, rank))
        singular[0, positions, :rank] = values * scales[:, None]  # (sites of this rank, rank)
    return names, singular


def _scales(config: Mapping[str, Any], names: list[str], rank: int) -> Float[Tensor, " n"]:
    """The factors that PEFT multiplies each module's ΔW with, without their signs."""
    if not config.get("alpha_pattern"):
        return torch.full((len(names),), abs(scale("peft", config, "", rank)), dtype=torch.float64)
    scales = [abs(scale("peft", config, name, rank)) for name in names]
    return torch.tensor(scales, dtype=torch.float64)


def _singular(
    gram_a: Float[Tensor, "n r r"], gram_b: Float[Tensor, "n r r"]
) -> Float[Tensor, "n r"]:
    half, failed = torch.linalg.cholesky_ex(gram_a)
    if failed.any():  # a rank that is not used, as padding leaves it
        energy, v = torch.linalg.eigh(gram_a)
        half = v * energy.clamp_min(0.0).sqrt()[:, None, :]
    squares = torch.linalg.eigvalsh(half.mT @ gram_b @ half)
    return squares.clamp_min(0.0).sqrt().flip(-1)


def _grams(
    artifact: Artifact, names: list[str], rank: int
) -> tuple[Float[Tensor, "n r r"], Float[Tensor, "n r r"]]:
    """A·Aᵀ and BᵀB of modules of one rank.

    One module at a time: small arrays are in the allocator's reach, while pages for one large stack
    would be asked for at each call.
    """
    entries, content = artifact.header.tensors, memoryview(artifact.files[artifact.weights])
    grams_a, grams_b = np.empty((2, len(names), rank, rank))
    for name, gram_a, gram_b in zip(names, grams_a, grams_b, strict=True):
        a = values(content, entries[key_of(name, "A", entries)]).reshape(rank, -1)  # (r, in)
        b = values(content, entries[key_of(name, "B", entries)]).reshape(-1, rank)  # (out, r)
        np.matmul(a, a.T, out=gram_a)
        np.matmul(b.T, b, out=gram_b)
    return torch.from_numpy(grams_a), torch.from_numpy(grams_b)


def key_of(name: str, half: str, entries: dict[str, TensorEntry]) -> str:
    """The name of one half of a module's factors among a file's tensors."""
    key = f"{PREFIX}{name}.lora_{half}.weight"
    return key if key in entries else f"{PREFIX}{name}.lora_embedding_{half}"


def values(content: memoryview, entry: TensorEntry) -> "np.ndarray":
    """One tensor's elements in float64."""
    raw = np.frombuffer(content[entry.start : entry.end], _KINDS[entry.dtype])
    if entry.dtype == "BF16":  # the upper half of a float32
        raw = np.left_shift(raw, 16, dtype=np.uint32).view(np.float32)
    return raw.astype(np.float64)
