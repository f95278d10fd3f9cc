"""Routing: adapters for requests that come without a description, chosen by their input.

LoraRetriever (arXiv 2402.09997) takes the adapter whose task's samples are most similar to the
input. DLP-LoRA (arXiv 2410.01497) predicts the task with a small MLP and sums the adapters of the
most likely ones, as many as it takes to reach the probability p. Both read one sentence vector of
the input.

Arrow (Ostapenko et al. 2024, arXiv 2405.11157), which PEFT runs, routes each token in each layer to
the experts whose ΔW has the most similar top right singular vector; it needs no training, but
experts of one rank and of the same modules. X-LoRA (arXiv 2402.07148), PEFT's other router, is a
trained gate. Both run here too (`index.gate`).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float
from safetensors.torch import save
from torch import Tensor, nn

from index.encoders.descriptions import MAX_CHARACTERS, DescriptionEncoder
from index.gate.learnt import Gate
from index.gate.takes import greatest, top_p
from library.adapter import Adapter
from library.checkpoint import Checkpointed, load_checkpoint
from library.errors import MissingPath, UsageError
from library.layout import Layout
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE, to_peft
from library.store.catalogue import Record, read_adapter
from library.store.folder import LibraryFolder

TOP_P = 0.9
MAX_ADAPTERS = 4  # in a sum
SET_FILE = "arrow.json"
TaskWeights: TypeAlias = list[tuple[str, float]]  # tasks and the weights of their adapters


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
    def nearest(
        self, x: Float[Tensor, "n d"], among: Sequence[str], k: int = 1
    ) -> list[TaskWeights]:
        """LoraRetriever: of the tasks `among`, the k with the nearest samples, all alike."""
        k = min(k, len(among))
        cosines = x.float() @ self.samples.T
        best = cosines.masked_fill(self._excluded(among), -torch.inf).topk(k, dim=-1).indices
        return [[(self.tasks[i], 1 / k) for i in row] for row in best.tolist()]

    @torch.inference_mode()
    def top_p(
        self, x: Float[Tensor, "n d"], among: Sequence[str], p: float = TOP_P
    ) -> list[TaskWeights]:
        """DLP-LoRA: the likeliest tasks up to probability p, four at most, weights summing to 1."""
        logits = self(x.float()).masked_fill(self._excluded(among), -torch.inf)
        likely = logits.softmax(dim=-1)
        shares = likely * (top_p(likely, p) & greatest(likely, MAX_ADAPTERS))
        ordered, order = (shares / shares.sum(-1, keepdim=True)).sort(descending=True, stable=True)
        return [
            [(self.tasks[i], share) for i, share in zip(*row, strict=True) if share]
            for row in zip(order.tolist(), ordered.tolist(), strict=True)
        ]

    def _excluded(self, among: Sequence[str]) -> Bool[Tensor, " tasks"]:
        names = set(among)
        return torch.tensor([name not in names for name in self.tasks])


def embed_inputs(encoder: DescriptionEncoder, texts: Sequence[str]) -> Float[Tensor, "n d"]:
    """Unit vectors of inputs, in batches; an empty one counts as a full stop."""
    return encoder.pooled_batch([text.strip()[:MAX_CHARACTERS] or "." for text in texts]).cpu()


def load_router(folder: Path) -> Router:
    """Read a router. Raises MissingPath, or CheckpointError if it is damaged or foreign."""
    if not folder.is_dir():
        raise MissingPath(f"there is no router at {folder}")
    return load_checkpoint(folder, Router).module


def arrow_set(
    folder: LibraryFolder,
    records: Sequence[Record],
    layout: Layout,
    *,
    top_k: int | None,
    temperature: float,
    seed: int,
) -> dict[str, bytes]:
    """Library adapters as PEFT's Arrow takes them, one folder per expert and `arrow.json`: files
    by relative path.

    Args:
        records: of the experts, in their order.
        layout: of the base; experts of lower rank or fewer modules are padded with zeros.
        top_k: experts per token; None: 3, or both of two.
        temperature, seed: PEFT's ArrowConfig.
    Raises:
        UsageError: fewer than two experts, one twice, of several bases, or a value out of range.
        LayoutMismatch, AdapterFileError: an adapter does not fit or is damaged.
    """
    top_k = min(3, len(records)) if top_k is None else top_k
    _require_set(records, top_k, temperature)
    paths = [f"experts/task_{number}" for number in range(len(records))]  # PEFT's names
    adapters = [read_adapter(folder, record["id"], layout) for record in records]
    experts = [
        {"path": path, "id": record["id"], "task": record["task"]}
        for path, record in zip(paths, records, strict=True)
    ]
    config = {
        "base_model": records[0]["base_model"],
        "arrow_config": {"top_k": top_k, "router_temperature": temperature, "rng_seed": seed},
        "experts": experts,
        "rank": max(adapter.layout.rank for adapter in adapters),
    }
    text = json.dumps(config, indent=1, sort_keys=True) + "\n"
    return {**_expert_files(paths, adapters, records, layout), SET_FILE: text.encode()}


def x_lora_set(folder: LibraryFolder, records: Sequence[Record], gate: Gate) -> dict[str, bytes]:
    """A trained `x-lora` gate and its adapters as PEFT's X-LoRA loads them: files by relative path.

    PEFT 0.21.2 itself would leave the classifier's only layer out of what it saves.

    Args:
        records: of the gate's adapters, in its order.
        gate: of that system.
    Raises:
        UsageError: the gate is of another system.
        LayoutMismatch, AdapterFileError: an adapter does not fit or is damaged.
    """
    if gate.config.system != "x-lora":
        raise UsageError(
            f"PEFT's X-LoRA is the system x-lora, and the gate is {gate.config.system}"
        )
    paths = [f"experts/{number}" for number in range(len(records))]
    adapters = [read_adapter(folder, record["id"], gate.layout) for record in records]
    config = {
        "adapters": {str(number): path for number, path in enumerate(paths)},  # in this order
        "base_model_name_or_path": records[0]["base_model"],
        "enable_softmax": True,
        "hidden_size": gate.config.width,
        "layerwise_scalings": True,
        "peft_type": "XLORA",
        "task_type": "CAUSAL_LM",
        "xlora_depth": 1,
        "xlora_dropout_p": 0.0,
    }
    places = [gate.layout.position(site.name) for site in gate.layout.sites]
    name = "base_model.internal_xlora_classifier.layers.0"
    layer = {  # the rows of one site after the other's, in the order of the base's modules
        f"{name}.weight": torch.cat([gate.weight[group.key][i] for group, i in places]),
        f"{name}.bias": torch.cat([gate.bias[group.key][i] for group, i in places]),
    }
    return {
        **_expert_files(paths, adapters, records, gate.layout),
        CONFIG_FILE: (json.dumps(config, indent=1) + "\n").encode(),
        WEIGHTS_FILE: save({key: t.detach() for key, t in layer.items()}, {"format": "pt"}),
    }


def _expert_files(
    paths: Sequence[str], adapters: Sequence[Adapter], records: Sequence[Record], layout: Layout
) -> dict[str, bytes]:
    """A PEFT folder for each adapter, all with the base's modules at one rank, as Arrow asks."""
    files: dict[str, bytes] = {}
    whole = layout.with_rank(max(adapter.layout.rank for adapter in adapters))
    for path, adapter, record in zip(paths, adapters, records, strict=True):
        expert = to_peft(adapter.expanded(whole), base_name=record["base_model"])
        files[f"{path}/{CONFIG_FILE}"] = expert.config_bytes
        files[f"{path}/{WEIGHTS_FILE}"] = expert.weights
    return files


def _require_set(records: Sequence[Record], top_k: int, temperature: float) -> None:
    ids = [record["id"] for record in records]
    if len(ids) < 2:
        raise UsageError("routing needs at least two adapters")
    if len(set(ids)) < len(ids):
        raise UsageError(f"{max(ids, key=ids.count)} is named twice")
    if len({record["base_model"] for record in records}) > 1:
        raise UsageError("the adapters are for different base models")
    if not 1 <= top_k <= len(ids):
        raise UsageError(f"top-k must be from 1 to {len(ids)}, not {top_k}")
    if not 0 < temperature < float("inf"):
        raise UsageError(f"temperature must be above zero, not {temperature:g}")
