"""Which tasks of a library an input is like: routing of requests that come without a description.

LoraRetriever (arXiv 2402.09997) takes the adapter whose task's samples are nearest to the input.
DLP-LoRA (arXiv 2410.01497) lets a small MLP guess the task and sums the adapters of the likeliest
ones, as many as it takes to reach the probability p. Both read one sentence vector of the input.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from index.encoders.descriptions import MAX_CHARACTERS, DescriptionEncoder
from library.checkpoint import Checkpointed, load_checkpoint

TOP_P = 0.9
MOST = 4  # adapters in a sum
Mix = list[tuple[str, float]]  # tasks and the weights of their adapters


@dataclass(frozen=True)
class RouterConfig:
    """Attributes:
    tasks: their names, which are the classes.
    dimension: of the encoder's vectors.
    hidden: width of the MLP.
    encoder: name of the encoder.
    """

    tasks: Sequence[str]
    dimension: int
    hidden: int
    encoder: str


class Router(Checkpointed):
    """A vector for each task, and an MLP over the tasks."""

    kind = "router"
    Config = RouterConfig
    for_layout = False
    samples: Tensor

    def __init__(self, config: RouterConfig, layout: None = None) -> None:
        super().__init__(config, layout)
        self.tasks, self.encoder = list(config.tasks), config.encoder
        tasks, dimension, hidden = len(config.tasks), config.dimension, config.hidden
        self.register_buffer("samples", torch.zeros(tasks, dimension))
        self.mlp = nn.Sequential(nn.Linear(dimension, hidden), nn.ReLU(), nn.Linear(hidden, tasks))

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n tasks"]:
        return self.mlp(x)

    @torch.inference_mode()
    def nearest(self, x: Float[Tensor, "n d"], among: Sequence[str]) -> list[Mix]:
        """LoraRetriever, selection: the one task whose samples are nearest, of those `among`."""
        cosines = x.float() @ self.samples.T
        best = self._masked(cosines, among).argmax(dim=-1)
        return [[(self.tasks[i], 1.0)] for i in best.tolist()]

    @torch.inference_mode()
    def top_p(self, x: Float[Tensor, "n d"], among: Sequence[str], p: float = TOP_P) -> list[Mix]:
        """DLP-LoRA: the likeliest tasks up to probability p, four at most, weights summing to 1."""
        probabilities = self._masked(self(x.float()), among).softmax(dim=-1)
        ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
        kept = (ordered.cumsum(-1) - ordered < p) & (torch.arange(len(self.tasks)) < MOST)
        kept &= ordered > 0
        found = []
        for row, places, keep in zip(ordered, order, kept, strict=True):
            weights = row[keep] / row[keep].sum()
            names = [self.tasks[i] for i in places[keep].tolist()]
            found.append(list(zip(names, weights.tolist(), strict=True)))
        return found

    def _masked(self, values: Float[Tensor, "n tasks"], among: Sequence[str]) -> Tensor:
        wanted = set(among)
        out = torch.tensor([name not in wanted for name in self.tasks])
        return values.masked_fill(out, -torch.inf)


def embed_inputs(encoder: DescriptionEncoder, texts: Sequence[str]) -> Float[Tensor, "n d"]:
    """Unit vectors of inputs, in batches; what is empty counts as a full stop."""
    return encoder.pooled_batch([text.strip()[:MAX_CHARACTERS] or "." for text in texts]).cpu()


def load_router(folder: Path) -> Router:
    """Read a router. Raises MissingPath, or CheckpointError if it is damaged or foreign."""
    return load_checkpoint(folder, Router).module
