"""Reconstruction: a generator learns to reproduce known adapters from their descriptions.

Good for compressing a library; SFT is better for tasks that no adapter exists for (Charakorn et
al. 2025, table 6). The generator predicts weights, not z-scores, so nothing has to be inverted when
it generates.
"""

from dataclasses import replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from generator.layers.flattened import flatten, per_value, weight_statistics
from library.adapter import Adapter
from library.errors import UsageError
from library.factored import squared_delta_distance
from training.data.adapters import AdapterBatch, LibraryDataModule
from training.objectives.module import GeneratorModule

Target = Literal["factors", "delta_w", "squared_error", "mean_squared_error"]
Spread = tuple[dict[str, Tensor], dict[str, Tensor]]  # standard deviations of A and of B


class Reconstruction(GeneratorModule):
    """Train on a library's adapters.

    Loss: the distance to the adapter, plus `term_weights` times the generator's own terms (a KL
    in nats, for one), which are logged by name.

    Args:
        target: "factors", the mean absolute difference of A and of B (the paper's eq. 2);
            "squared_error", the squared difference summed over all entries of an adapter's A and
            B, for autoencoders whose KL is a sum as well (SG-LoRA); "mean_squared_error", its mean
            over all weights (ICM-LoRA); or "delta_w", the squared Frobenius distance of ΔW relative
            to the targets', which does not depend on how ΔW is factored.
        z_score: but for "delta_w", measure in standard deviations over the training adapters: of
            each entry, or with "mean_squared_error" of each tensor about the mean of each entry.
        term_weights: factors on the generator's own terms; 1 for those not named.
        **kwargs: see GeneratorModule.
    """

    gives = frozenset({"description", "base", "experts", "task"})

    def __init__(
        self,
        target: Target = "factors",
        z_score: bool = True,
        term_weights: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.target: Target = target
        self.z_score, self.term_weights = z_score, term_weights or {}
        self._spread: Spread | None = None
        self._unit: Tensor | None = None  # of every weight of a flattened adapter

    def settings(self) -> dict[str, Any]:
        terms = self.term_weights
        return {"target": self.target, "z_score": self.z_score, "term_weights": terms}

    def on_fit_start(self) -> None:
        data: LibraryDataModule = self.data
        self.generator.layout.require_same(data.layout, "the generator", "the library")
        self._require_experts(data)
        self.generator.prepare(data.adapters, data.task_vectors)
        if self.target == "mean_squared_error" and self.z_score:
            _, deviations = weight_statistics(data.adapters)
            self._unit = per_value(data.layout, deviations).to(self.device)
        elif self.target != "delta_w" and self.z_score:
            self._spread = spread_on(data, self.device)

    def _require_experts(self, data: LibraryDataModule) -> None:
        """Raise UsageError if the generator needs experts that the data do not give."""
        if "experts" not in self.generator.needs:
            return
        if len(data.task_names) < 2:
            raise UsageError(
                f"{self.generator.kind} needs adapters of two tasks or more, as an adapter's "
                f"experts are other tasks'; {data.library} holds one task"
            )
        if data.experts != self.generator.top_k:
            raise UsageError(
                f"the data give {data.experts} experts, and {self.generator.kind} is made for "
                f"{self.generator.top_k}"
            )

    def training_step(self, batch: AdapterBatch, batch_idx: int) -> Tensor:
        condition = replace(batch.condition, base=self.base_model)
        adapter, terms = self.generator.posterior(condition, batch.targets)
        if self.target == "delta_w":
            loss = delta_w_loss(adapter, batch.targets)
        elif self.target == "mean_squared_error":
            loss = mean_squared_error(adapter, batch.targets, self._unit)
        elif self.target == "squared_error":
            loss = squared_error(adapter, batch.targets, self._spread)
        else:
            loss = factor_loss(adapter, batch.targets, self._spread)
        self.log("train_distance", loss)
        for name, term in terms.items():
            self.log(f"train_{name}", term)
            loss = loss + self.term_weights.get(name, 1.0) * term
        self.log("train_loss", loss, prog_bar=True)
        return loss


def spread_on(data: LibraryDataModule, device: torch.device) -> Spread:
    """The standard deviations over a library's adapters, on a device."""
    spread_a, spread_b = data.spread()
    return (
        {key: value.to(device) for key, value in spread_a.items()},
        {key: value.to(device) for key, value in spread_b.items()},
    )


def factor_loss(
    predicted: Adapter,
    targets: Adapter,
    spread: Spread | None = None,
) -> Float[Tensor, ""]:
    """Mean |Δ| of A and of B, averaged over both and over groups; in units of `spread` if given."""
    pairs = _differences(predicted, targets, spread)
    return torch.stack([(a.abs().mean() + b.abs().mean()) / 2 for a, b in pairs]).mean()


def squared_error(
    predicted: Adapter, targets: Adapter, spread: Spread | None = None
) -> Float[Tensor, ""]:
    """Σ Δ² over all entries of A and B, mean over adapters; in units of `spread`² if given."""
    pairs = _differences(predicted, targets, spread)
    sums = [a.square().sum() + b.square().sum() for a, b in pairs]
    return torch.stack(sums).sum() / len(targets)


def _differences(
    predicted: Adapter, targets: Adapter, spread: Spread | None
) -> list[tuple[Tensor, Tensor]]:
    """Of A and of B, by group; in units of `spread` if given."""
    pairs = []
    for key in predicted.A:
        a, b = predicted.A[key] - targets.A[key], predicted.B[key] - targets.B[key]
        if spread is not None:
            a, b = a / (spread[0][key] + 1e-6), b / (spread[1][key] + 1e-6)
        pairs.append((a, b))
    return pairs


def mean_squared_error(
    predicted: Adapter,
    targets: Adapter,
    unit: Float[Tensor, " values"] | None = None,
) -> Float[Tensor, ""]:
    """Mean Δ² over the weights of all modules, each in its `unit` if given.

    Ranks beyond a module's own do not count, nor weights whose unit is zero, which all targets
    share.
    """
    error = flatten(predicted) - flatten(targets)  # (n, values)
    if unit is not None:
        varying = unit > 0
        error = error[:, varying] / unit[varying]
    return error.square().mean()


def delta_w_loss(predicted: Adapter, targets: Adapter) -> Float[Tensor, ""]:
    """Σ‖ΔŴ − ΔW‖² / Σ‖ΔW‖² over adapters and sites, in factored form and float64 inside."""
    errors, sizes = [], []
    for key, a in predicted.A.items():
        b, target_a, target_b = predicted.B[key], targets.A[key], targets.B[key]
        errors.append(squared_delta_distance(a, b, target_a, target_b).sum())
        zero = torch.zeros_like(target_b)
        sizes.append(squared_delta_distance(target_a, target_b, target_a, zero).sum())
    return (torch.stack(errors).sum() / torch.stack(sizes).sum()).float()
