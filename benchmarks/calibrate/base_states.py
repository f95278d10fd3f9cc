"""Makes a reader of descriptions by the base's own states, for generators to be trained on.

    python -m benchmarks.calibrate.base_states --layers 18 --adapter pretrained/multi-task \\
        --tasks TASKS/train TASKS/train_extra --out READER

The adapter, or the part of it below that layer, is one that reads instructions in its prompt.
Each dimension is standardised over the definitions of at most 256 of the tasks. Then
`lorasmith train fit ... --model.encoder READER --data.encoder READER`.
"""

import argparse
from pathlib import Path

import torch

from index.encoders.base_states import BaseStates, BaseStatesConfig, StateEncoder
from library.adapter import Adapter, from_sites, zeros
from library.base.models import BaseReference, described, load_config, resolve_base
from library.base.stored_adapters import read_for_base
from library.checkpoint import CheckpointInfo, save_checkpoint
from library.layout import Layout, layout_of
from training.data.tasks import read_folders

DEFINITIONS = 256


def main() -> None:
    o = _options()
    base = resolve_base(o.base)
    adapter = below(read_for_base(o.adapter, base) if o.adapter else nothing(base), o.layers)
    width = load_config(base).hidden_size
    reading = BaseStates(BaseStatesConfig(o.layers, width), adapter.layout)
    reading.read_with(adapter)
    tasks = read_folders(o.tasks, {"restricted"})
    encoder = StateEncoder(reading, base, dtype=torch.float32, device=o.device)
    rows = encoder.encode_batch([task.definition for task in tasks[:DEFINITIONS]])
    reading.standardise(torch.cat([row.tokens[0] for row in rows]))
    info = CheckpointInfo(described(base), tasks=sorted(task.name for task in tasks))
    save_checkpoint(o.out, reading, info, storage="int8", overwrite=True)


def below(adapter: Adapter, layers: int) -> Adapter:
    """The part of an adapter that acts in the first layers."""
    layout = adapter.layout
    kept = [site for site in layout.sites if site.depth < layers]
    pairs = {site.name: tuple(f[0] for f in adapter.site(site)) for site in kept}
    some = Layout(layout.model_type, layout.depth, tuple(kept))
    return from_sites(some, {name: (a.float(), b.float()) for name, (a, b) in pairs.items()})


def nothing(base: BaseReference) -> Adapter:
    """An adapter that changes nothing, of rank 1."""
    return zeros(layout_of(load_config(base), rank=1))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="+", required=True)
    parser.add_argument("--base")
    parser.add_argument("--layers", type=int, required=True)
    parser.add_argument("--adapter", type=Path, help="none: the base alone")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
