"""A set of library adapters as PEFT's Arrow takes it: one folder an expert, and a configuration.

Arrow (Ostapenko et al. 2024, arXiv 2405.11157) routes each token in each layer to the experts whose
ΔW has the top right singular vector that is most like it; it needs no training, but experts of one
rank and of the same modules. X-LoRA, PEFT's other router, is a trained gate: without its training
there is nothing to export.
"""

import json
from collections.abc import Sequence
from typing import Any

from library.errors import UsageError
from library.layout import Layout
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE, to_peft
from library.store.catalogue import Record, read_adapter
from library.store.folder import LibraryFolder

SET_FILE = "arrow.json"


def arrow_set(
    folder: LibraryFolder,
    records: Sequence[Record],
    layout: Layout,
    *,
    top_k: int,
    temperature: float = 1.0,
    seed: int = 0,
) -> dict[str, bytes]:
    """The files of a set by relative path, `arrow.json` among them.

    Args:
        records: of the experts, in their order.
        layout: of the base; experts of lower rank are padded with zeros to the greatest.
        top_k, temperature, seed: PEFT's ArrowConfig.
    Raises:
        UsageError: fewer than two experts, one twice, of several bases, or a value out of range.
        LayoutMismatch, AdapterFileError: an adapter does not fit or is damaged.
    """
    _require_set(records, top_k, temperature)
    adapters = [read_adapter(folder, record["id"], layout) for record in records]
    rank = max(adapter.layout.rank for adapter in adapters)
    files: dict[str, bytes] = {}
    experts: list[dict[str, Any]] = []
    for place, (record, adapter) in enumerate(zip(records, adapters, strict=True)):
        made = to_peft(adapter.with_rank(rank), base_name=record["base_model"])
        path = f"experts/task_{place}"  # as PEFT will name it
        files[f"{path}/{CONFIG_FILE}"] = made.config_bytes
        files[f"{path}/{WEIGHTS_FILE}"] = made.weights
        experts.append({"path": path, "id": record["id"], "task": record["task"]})
    config = {
        "base_model": records[0]["base_model"],
        "arrow_config": {"top_k": top_k, "router_temperature": temperature, "rng_seed": seed},
        "experts": experts,
        "rank": rank,
    }
    files[SET_FILE] = (json.dumps(config, indent=1, sort_keys=True) + "\n").encode()
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
