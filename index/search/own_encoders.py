"""Weight encoders of a library's own, for bases that the given one, a trained one, is not for.

`index build` fits one to the adapters of each such base, in closed form (index.encoders.
weight_start), and stores it beside the indexes under a name that says what it was fitted to. Each
has an index of its own, as vectors of two encoders do not compare.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from index.encoders.descriptions import DescriptionEncoder, normalise
from index.encoders.weight_start import fitted_encoder
from index.encoders.weights import WeightEncoder, base_key, load_weight_encoder
from index.search.sources import WEIGHTS, WeightSource
from index.search.sync import index_root
from index.segments.snapshot import REBUILD, IndexDamaged
from library.adapter import Adapter
from library.canonical import json_digest
from library.checkpoint import CheckpointInfo, save_checkpoint
from library.errors import AdapterFileError, CheckpointError, MissingPath
from library.peft.read import adapter_of, shape_of
from library.store.catalogue import files_of, records
from library.store.folder import LibraryFolder
from library.store.open import open_library
from library.store.records import Record

FOLDER = "encoders"
MOST = 200  # adapters that one is fitted to, as all of them lie in memory


def own_encoder_names(location: str) -> list[str]:
    """Names of a library's own encoders, sorted."""
    folder = index_root(location) / FOLDER
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def own_index(name: str) -> str:
    """The folder of the index of one of a library's own encoders."""
    return f"{WEIGHTS}-{name}"


def own_source(location: str, name: str) -> WeightSource:
    """The vectors that one of them makes. Raises IndexDamaged."""
    try:
        encoder = load_weight_encoder(index_root(location) / FOLDER / name)
    except (CheckpointError, MissingPath) as error:
        raise IndexDamaged(
            f"the weight encoder {name} of the library is damaged; {REBUILD}"
        ) from error
    return WeightSource(encoder, own_index(name))


def fit_own_encoders(
    location: str, given: WeightEncoder, descriptions: DescriptionEncoder
) -> list[str]:
    """Fit what is missing and remove what is outdated, with its index; the names of what there is.

    A base needs adapters of two descriptions. Raises MissingPath, OutputError.

    Args:
        location: of the library.
        given: the encoder of all other bases.
        descriptions: reads descriptions.
    """
    library, root = open_library(location), index_root(location)
    bases: dict[str, list[Record]] = {}
    for record in records(library):
        if not given.is_for(record["base_model"]):
            bases.setdefault(base_key(record["base_model"]), []).append(record)
    names = []
    for own in bases.values():
        if len({record["description"] for record in own}) < 2:
            continue
        chosen = [[record["id"], record["description"]] for record in own[:MOST]]
        names.append(json_digest([descriptions.name, *chosen])[:16])
        try:
            own_source(location, names[-1])
        except IndexDamaged:  # or not there yet
            _fit(library, own[:MOST], descriptions, root / FOLDER / names[-1])
    for name in {*own_encoder_names(location)} - {*names}:
        for outdated in (root / FOLDER / name, root / own_index(name)):
            shutil.rmtree(outdated, ignore_errors=True)
    return own_encoder_names(location)


def _fit(
    library: LibraryFolder, own: Sequence[Record], texts: DescriptionEncoder, folder: Path
) -> None:
    """Fit an encoder to the records' adapters, as far as they can be read, and store it."""
    fitting = _adapters(library, own)
    described = texts.vectors([normalise(record["description"]) for record, _ in fitting])
    encoder = fitted_encoder([adapter for _, adapter in fitting], described.double())
    info = CheckpointInfo(
        base={"id": own[0]["base_model"], "sha256": own[0]["base_sha256"], "source": "library"},
        encoder=texts.name,
        tasks=sorted({record["task"] for record, _ in fitting}),
        training={"objective": "closed form", "adapters": [record["id"] for record, _ in fitting]},
    )
    save_checkpoint(folder, encoder, info, storage="int8", overwrite=True)


def _adapters(library: LibraryFolder, own: Sequence[Record]) -> list[tuple[Record, Adapter]]:
    """Sound adapters that agree on the shapes of the base's modules."""
    shapes: dict[str, tuple[str, int, int, int]] = {}
    fitting = []
    for record in own:
        try:
            adapter = adapter_of(files_of(library, record["id"]))
        except AdapterFileError:
            continue
        found = {site.name: shape_of(site) for site in adapter.layout.sites}
        if all(shapes.get(name, shape) == shape for name, shape in found.items()):
            shapes |= found
            fitting.append((record, adapter))
    return fitting
