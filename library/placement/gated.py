"""One LoRA on the mixed rows of a probe's tasks, each of its rank-1 components under a gate."""

import random
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from library.adapter import Adapter
from library.base.batches import grouped
from library.base.loss import row_losses
from library.base.multi_adapter import MultiAdapter
from library.layout import Layout
from library.placement.placement import of_depths
from library.placement.probe import BATCH, Probe
from library.trainer.optimiser import shared_start

WIDER = 2  # times the mean rank, so that there is something to choose from
PART_ROWS = 256  # to train on, and as many to tune on, of all tasks together
RATE, GATE_RATE = 2e-3, 0.02  # AdamW's, of the factors and of what gates are made of

Gates = Float[Tensor, " components"]


class GatedLoRA:
    """ΔW = Σ gate·b·aᵀ over components, which stand in a row: a and b learn, placements set gates.

    To be closed after use; the base is then as it was.

    Attributes:
        module, layer, place: of each component, from 0: its module in the layout, its layer among
            those adapted, its place in the module.

    Args:
        layout: the modules that may be adapted; the LoRA has WIDER times its ranks if it can.
    """

    def __init__(self, layout: Layout, probe: Probe) -> None:
        base = self._base = probe.base
        ranks = {site.name: min(WIDER * site.rank, site.full_rank) for site in layout.sites}
        self.layout = layout.with_ranks(ranks)
        self._start = shared_start(self.layout, probe.seed).to(base.device).detached()
        layers = {depth: i for i, depth in enumerate(of_depths(layout))}
        known = [
            (i, layers[layout.sites[i].depth], place)
            for group in self.layout.groups
            for i in group.indices
            for place in range(group.rank)
        ]
        self.module, self.layer, self.place = torch.tensor(known, device=base.device).unbind(1)
        self._rows = {part: probe.drawn_rows(part, PART_ROWS) for part in ("train", "tune")}
        self._progress = probe.progress
        self.rng = random.Random(f"{probe.seed}/gates")
        self._hooks = MultiAdapter(base.model, self.layout)

    def close(self) -> None:
        self._hooks.close()

    def filled(self, count: int, value: float) -> Float[Tensor, " count"]:
        return torch.full((count,), value, device=self.place.device)

    def adapter(self, gates: Gates) -> Adapter:
        """The LoRA as it acts under the gates."""
        groups, b = self.layout.groups, self._start.B
        parts = gates.split([len(group.sites) * group.rank for group in groups])
        gated = {
            group.key: b[group.key] * part.view(1, len(group.sites), 1, group.rank)
            for group, part in zip(groups, parts, strict=True)
        }
        return Adapter(self.layout, self._start.A, gated)

    def loss(self, part: Literal["train", "tune"], gates: Gates) -> Float[Tensor, ""]:
        """The mean over a few rows, drawn anew each time."""
        rows = self.rng.sample(self._rows[part], min(BATCH, len(self._rows[part])))
        (batch,) = grouped(rows, self._base.tokenizer.pad_token_id, 1)
        batch = batch.to(self._base.device)
        return row_losses(self._base.model, self._hooks, batch, self.adapter(gates)).mean()

    def train(self, steps: int, gates: Callable[[], Gates], then: Callable[[float], None]) -> None:
        """Steps of a and b on train rows; `then` is told the share of them that is done."""
        optimiser = torch.optim.AdamW(self._start.factors(), lr=RATE, weight_decay=0.0)
        for step in range(1, steps + 1):
            _move(optimiser, self.loss("train", gates().detach()))
            then(step / steps)
            self._progress(step, steps)

    def learn(
        self,
        steps: int,
        parameter: Tensor,
        gates: Callable[[], Gates],
        penalty: Callable[[], float | Tensor] = lambda: 0.0,
    ) -> None:
        """The same, in turn with steps on tune rows of the parameter that gates are made of."""
        optimiser = torch.optim.AdamW([parameter.requires_grad_()], lr=GATE_RATE, weight_decay=0.0)
        self.train(steps, gates, lambda _: _move(optimiser, self.loss("tune", gates()) + penalty()))

    @torch.no_grad()
    def shares(self, gates: Gates) -> Float[Tensor, " components"]:
        """The norm of each component over that of its module's ΔW."""
        adapter, found = self.adapter(gates), list[Tensor]()
        for key, a in adapter.A.items():
            b = adapter.B[key]
            products = (a @ a.mT) * (b.mT @ b)  # of two components: (1, sites, rank, rank)
            whole = products.sum((2, 3)).clamp(min=1e-24)
            squares = products.diagonal(dim1=2, dim2=3) / whole[..., None]
            found.append(squares.sqrt().flatten())
        return torch.cat(found)

    def by_module(self, values: Float[Tensor, " components"]) -> dict[str, float]:
        """Sums over the components of each module; 0 for what is below it."""
        sums = self.filled(len(self.layout.sites), 0.0).index_add(0, self.module, values.detach())
        return dict(zip(self.layout.ranks, sums.relu().tolist(), strict=True))


def _move(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    """A step of what an optimiser moves, and of nothing else."""
    trained = optimiser.param_groups[0]["params"]
    optimiser.zero_grad()
    loss.backward(inputs=trained)
    torch.nn.utils.clip_grad_norm_(trained, 1.0)
    optimiser.step()
