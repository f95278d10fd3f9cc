"""Reconstruction: a generator learns to reproduce known adapters from their descriptions.

Good for compressing a library; SFT is better for tasks that no adapter exists for (Charakorn et
al. 2025, table 6). The generator predicts weights, not z-scores, so nothing has to be inverted when
it generates.
"""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from index.encoders.descriptions import (
    DEFAULT_ENCODER,
    DescriptionEncoder,
    Embeddings,
    join,
    normalise,
)
from library.adapter import Adapter, stack
from library.base.models import load_config, resolve_base
from library.errors import AdapterFileError, MissingPath
from library.factored import squared_delta_distance
from library.layout import layout_of
from library.peft.provenance import PROVENANCE_FILE
from library.peft.read import read_peft
from training.objectives.module import GeneratorModule

Target = Literal["factors", "delta_w"]


@dataclass
class AdapterBatch:
    """Embedded descriptions and the adapters that they shall become."""

    embeddings: Embeddings
    targets: Adapter


class TextToLoRAReconstruction(GeneratorModule):
    """Train on adapters.

    Args:
        target: "factors", the mean absolute difference of A and of B (the paper's eq. 2); or
            "delta_w", the squared Frobenius distance of ΔW relative to the targets', which does not
            depend on how ΔW is factored.
        z_score: with "factors", measure in standard deviations over the training adapters.
        **kwargs: see GeneratorModule.
    """

    def __init__(self, target: Target = "factors", z_score: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.target: Target = target
        self.z_score = z_score
        self._spread: tuple[dict[str, Tensor], dict[str, Tensor]] | None = None

    def settings(self) -> dict[str, Any]:
        return {"target": self.target, "z_score": self.z_score}

    def on_fit_start(self) -> None:
        adapters: Adapter = self._data().adapters
        self.generator.layout.require_same(adapters.layout, "the generator", "the adapters")
        if self.target == "factors" and self.z_score:
            a = {k: v.std(dim=0, correction=0).to(self.device) for k, v in adapters.A.items()}
            b = {k: v.std(dim=0, correction=0).to(self.device) for k, v in adapters.B.items()}
            self._spread = (a, b)

    def training_step(self, batch: AdapterBatch, batch_idx: int) -> Tensor:
        made = self.generator(batch.embeddings)
        if self.target == "delta_w":
            loss = delta_w_loss(made, batch.targets)
        else:
            loss = factor_loss(made, batch.targets, self._spread)
        self.log("train_loss", loss, prog_bar=True)
        return loss


def factor_loss(
    made: Adapter,
    targets: Adapter,
    spread: tuple[dict[str, Tensor], dict[str, Tensor]] | None = None,
) -> Float[Tensor, ""]:
    """Mean |Δ| of A and of B, averaged over both and over groups; in units of `spread` if given."""
    terms = []
    for key in made.A:
        a, b = made.A[key] - targets.A[key], made.B[key] - targets.B[key]
        if spread is not None:
            a, b = a / (spread[0][key] + 1e-6), b / (spread[1][key] + 1e-6)
        terms.append((a.abs().mean() + b.abs().mean()) / 2)
    return torch.stack(terms).mean()


def delta_w_loss(made: Adapter, targets: Adapter) -> Float[Tensor, ""]:
    """Σ‖ΔŴ − ΔW‖² / Σ‖ΔW‖² over adapters and sites, in factored form and float64 inside."""
    off, size = [], []
    for key, a in made.A.items():
        b, wanted_a, wanted_b = made.B[key], targets.A[key], targets.B[key]
        off.append(squared_delta_distance(a, b, wanted_a, wanted_b).sum())
        nothing = torch.zeros_like(wanted_b)
        size.append(squared_delta_distance(wanted_a, wanted_b, wanted_a, nothing).sum())
    return (torch.stack(off).sum() / torch.stack(size).sum()).float()


class AdapterDataModule(lightning.LightningDataModule):
    """A folder of adapter folders, each with the description in its provenance.json.

    Args:
        adapters: the folder; a library's `adapters` folder, say.
        base: Hub id or folder of their base; the default base if None.
        targets: module types that they adapt; the family's default if None.
        rank: of the adapters.
        encoder: the description encoder.
        adapters_per_step: drawn anew for each step.
        steps: steps of training that exist (an epoch).
        seed: of the drawing.
    """

    def __init__(
        self,
        adapters: str,
        base: str | None = None,
        targets: list[str] | None = None,
        rank: int = 8,
        encoder: str = DEFAULT_ENCODER,
        adapters_per_step: int = 32,
        steps: int = 1000,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.folder, self.encoder_name = Path(adapters), encoder
        self.layout = layout_of(load_config(resolve_base(base)), targets, rank=rank)
        self.per_step, self.steps, self.seed = adapters_per_step, steps, seed
        self.task_names: list[str] = []

    @property
    def record(self) -> dict[str, Any]:
        """What the checkpoint says of its data."""
        return {"adapters": len(self.adapters), "per_step": self.per_step, "seed": self.seed}

    def setup(self, stage: str) -> None:
        if not self.folder.is_dir():
            raise MissingPath(f"there is no folder of adapters at {self.folder}")
        folders = sorted(f.parent for f in self.folder.glob(f"*/{PROVENANCE_FILE}"))
        if not folders:
            raise AdapterFileError(f"{self.folder} holds no adapters with a provenance.json")
        records = [json.loads((f / PROVENANCE_FILE).read_text(encoding="utf-8")) for f in folders]
        self.task_names = sorted({r["task"] for r in records if r.get("task")})
        self.adapters = stack([read_peft(folder, self.layout) for folder in folders])
        encoder = DescriptionEncoder(self.encoder_name, dtype=torch.float32)
        self._embedded = encoder.encode_batch([normalise(r["description"]) for r in records])

    def train_dataloader(self) -> DataLoader[list[int]]:
        data = _Draws(len(self.adapters), self.per_step, self.steps, self.seed)
        return DataLoader(data, batch_size=None, shuffle=False)

    def transfer_batch_to_device(
        self, batch: list[int], device: torch.device, dataloader_idx: int
    ) -> AdapterBatch:
        embeddings = join([self._embedded[i] for i in batch]).to(device)
        return AdapterBatch(embeddings, self.adapters[batch].to(device))


class _Draws(Dataset[list[int]]):
    """Item i is which adapters step i takes: a function of (seed, i)."""

    def __init__(self, n: int, per_step: int, steps: int, seed: int) -> None:
        self.n, self.per_step, self.steps, self.seed = n, min(n, per_step), steps, seed

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> list[int]:
        return random.Random(f"{self.seed}/{step}").sample(range(self.n), self.per_step)
