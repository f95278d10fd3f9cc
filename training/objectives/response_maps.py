"""LoFA's first stage: learn which entries of the base's weights a task's adapter changes.

The paper's threshold is 2 % of an entry; at how many entries that cuts depends on how strongly
adapters were trained. So the share of entries that count as changed is what is chosen here, and the
threshold that gives it on the training adapters is measured and recorded.
"""

import random
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from generator.layers.lofa_config import ResponseMapsConfig
from generator.layers.response_maps import ResponseMaps, relative_change, responses
from index.encoders.descriptions import DEFAULT_ENCODER
from library.adapter import Adapter
from library.base.models import base_layout, load_model, resolve_base
from library.base.weights import group_weights
from library.checkpoint import Storage, save_checkpoint
from library.errors import UsageError
from library.layout import Group
from training.data.adapters import AdapterBatch, LibraryDataModule
from training.objectives.module import OptimiserConfig, adamw, checkpoint_info
from training.objectives.trained import TrainedModule

ENTRIES = 512  # of each module, at which the threshold is measured
_SIZES = ResponseMapsConfig()


class LoFAStage1(TrainedModule):
    """Train on a library's adapters.

    Loss (arXiv 2512.08785 and its code): binary cross-entropy of the maps, plus `penalty` times
    mean(A²) + mean(B²) of their factors.

    Args:
        architecture: sizes of the network.
        base: Hub id or folder of the library's base model; the default base if None.
        active: share of entries, over all training adapters, that shall count as changed.
        sites: modules whose maps a step has, drawn anew for each step.
        penalty: keeps the factors small.
        seed: of that drawing.
        optimiser: learning rate and its course.
        encoder: name of the description encoder, recorded in the checkpoint.
        out: folder for the exported checkpoint; none if None.
        storage: how its matrices are stored.
    Raises:
        UsageError: no share between 0 and 1, or no site.
        LayoutMismatch: once the data is there, for a library of another base.
    """

    def __init__(
        self,
        architecture: ResponseMapsConfig = _SIZES,
        base: str | None = None,
        active: float = 0.3,
        sites: int = 10,
        penalty: float = 1e-4,
        seed: int = 0,
        optimiser: OptimiserConfig = OptimiserConfig(),
        encoder: str = DEFAULT_ENCODER,
        out: str | None = None,
        storage: Storage = "int8",
    ) -> None:
        super().__init__()
        if not 0 < active < 1 or sites < 1:
            raise UsageError("active must lie between 0 and 1, and sites be at least 1")
        self.architecture, self.reference = architecture, resolve_base(base)
        self.active, self.sites, self.penalty, self.seed = active, sites, penalty, seed
        self.optimiser, self.encoder_name = optimiser, encoder
        self.out = out
        self.storage: Storage = storage
        self.network: ResponseMaps | None = None
        self.threshold = 0.0

    def setup(self, stage: str) -> None:
        if self.network is not None:
            return
        data: LibraryDataModule = self.data
        data.require_base(self.reference)
        layout = base_layout(self.reference, data.layout)
        layout.require_same(data.layout, f"base model '{self.reference.name}'", "the library")
        self.network = network = ResponseMaps(self.architecture, layout)
        self.threshold = response_threshold(data.adapters, self.base_model, self.active)
        odds = self.active / (1 - self.active)
        with torch.no_grad():
            for bias in network.bias.values():
                bias.fill_(odds).log_()

    @cached_property
    def base_model(self) -> nn.Module:
        """The base in float32."""
        return load_model(self.reference).to(self.trainer.strategy.root_device)

    def configure_optimizers(self) -> Any:
        return adamw(self, self.optimiser)

    def training_step(self, batch: AdapterBatch, batch_idx: int) -> Tensor:
        chosen = self._chosen(self.trainer.global_step)
        losses = [self._loss(batch, group, places) * len(places) for group, places in chosen]
        loss = torch.stack(losses).sum() / sum(len(places) for _, places in chosen)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def _loss(self, batch: AdapterBatch, group: Group, places: list[int]) -> Float[Tensor, ""]:
        """The loss on the modules of a group at some places."""
        network, text = self.network, batch.condition.text
        assert network is not None and text is not None
        w = group_weights(self.base_model, group, places)  # (sites, out, in)
        target_a, target_b = batch.targets.A[group.key], batch.targets.B[group.key]
        wanted = responses(target_a[:, places], target_b[:, places], w, self.threshold)
        a, b = network.factors(text, self.base_model, group, places)
        return map_loss(network.logits(a, b, w, group), wanted, (a, b), self.penalty)

    def _chosen(self, step: int) -> list[tuple[Group, list[int]]]:
        """The modules of a step, by group: a function of (seed, step)."""
        assert self.network is not None
        layout = self.network.layout
        count = min(self.sites, len(layout.sites))
        drawn = random.Random(f"{self.seed}/{step}/sites").sample(range(len(layout.sites)), count)
        chosen = [
            (group, [place for place, index in enumerate(group.indices) if index in drawn])
            for group in layout.groups
        ]
        return [(group, places) for group, places in chosen if places]

    def export(self, folder: Path) -> None:
        assert self.network is not None
        info = checkpoint_info(
            self, self.reference, self.encoder_name, self.optimiser, self.settings()
        )
        save_checkpoint(folder, self.network, info, storage=self.storage, overwrite=True)

    def settings(self) -> dict[str, Any]:
        """For the record; `threshold` is what `active` came to."""
        names = ("active", "threshold", "sites", "penalty", "seed")
        return {name: getattr(self, name) for name in names}


def map_loss(
    logits: Float[Tensor, "n sites out in"],
    wanted: Bool[Tensor, "n sites out in"],
    factors: tuple[Float[Tensor, "n sites r in"], Float[Tensor, "n sites r out"]],
    penalty: float,
) -> Float[Tensor, ""]:
    """Mean binary cross-entropy in nats, plus the penalty on the factors."""
    entropy = binary_cross_entropy_with_logits(logits, wanted.to(logits))
    return entropy + penalty * torch.stack([f.square().mean() for f in factors]).sum()


def response_threshold(adapters: Adapter, base: nn.Module, active: float) -> float:
    """τ with |Δw| > τ·|w| for a share `active` of the entries of all modules and adapters.

    Measured at entries drawn from each module, the same in every call.
    """
    generator, found = torch.Generator().manual_seed(0), []
    for group in adapters.layout.groups:
        for place in range(len(group.sites)):
            w = group_weights(base, group, [place])[0]
            rows, columns = (
                torch.randint(side, (ENTRIES,), generator=generator) for side in w.shape
            )
            found.append(_at(adapters, group, place, w, (rows, columns)))
    values = torch.cat(found)
    rank = round((1 - active) * len(values))
    return float(values.kthvalue(min(max(1, rank), len(values))).values)


def _at(
    adapters: Adapter,
    group: Group,
    place: int,
    w: Float[Tensor, "out in"],
    entries: tuple[Tensor, Tensor],
) -> Float[Tensor, " values"]:
    """|Δw/w| of all adapters at some entries of one module."""
    rows, columns = entries
    a = adapters.A[group.key][:, place, :, columns]  # (n, r, entries)
    b = adapters.B[group.key][:, place, rows]  # (n, entries, r)
    # One row times one column for each entry: (n, entries, 1, r) · (n, entries, r, 1)
    change = relative_change(
        a.mT[..., None].to(w), b[:, :, None].to(w), w[rows, columns, None, None]
    )
    return change.flatten()
