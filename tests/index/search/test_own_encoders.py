"""Weight encoders that `index build` fits to a library's own adapters of other bases."""

from collections.abc import Callable
from pathlib import Path

import pytest
import tiny

from api.cli.main import main
from index.search.own_encoders import FOLDER, own_encoder_names, own_source
from index.search.searcher import Searcher
from index.segments.metadata import Filter
from index.segments.snapshot import IndexDamaged
from library.exchange.importing import ImportRequest, import_adapter
from library.files import write_folder
from library.layout import Layout, Site
from library.peft.folder import read_adapter_folder
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE, to_peft
from library.store.folder import LibraryFolder

CLIP = [f"{tower}.layers.{i}.q_proj" for i in range(2) for tower in ("text", "vision")]
VIT = [f"encoder.layer.{i}.query" for i in range(2)]
TEXTS = ("photos of cats", "speech in a noisy street", "the answer in one word")
Add = Callable[..., str]


@pytest.fixture
def library(tmp_path: Path) -> Path:
    return tmp_path / "library"


@pytest.fixture
def add(library: Path, tmp_path: Path) -> Add:
    """Import a random adapter of some modules, 6 wide, and return its id."""

    def imported(base: str, names: list[str], text: str, *, seed: int, rank: int = 2) -> str:
        layout = Layout("", 2, tuple(Site(name, 6, 8, rank) for name in names))
        files = to_peft(tiny.adapter(layout, seed=seed), base_name=base, profile="lossless")
        source = tmp_path / f"{base.replace('/', ' ')} {seed}"
        write_folder(source, {CONFIG_FILE: files.config_bytes, WEIGHTS_FILE: files.weights})
        request = ImportRequest(str(source), base, f"task{seed}", text)
        return import_adapter(LibraryFolder(library), request).record["id"]

    return imported


def build(library: Path) -> list[str]:
    assert main(["index", "build", "--library", str(library)]) == 0
    return own_encoder_names(str(library))


def test_adapters_of_every_base_are_found_by_their_weights(
    library: Path, add: Add, encoder: object
) -> None:
    bases = {"example/clip": CLIP, "example/vit": VIT}
    added = {
        base: [add(base, names, text, seed=seed) for seed, text in enumerate(TEXTS)]
        for base, names in bases.items()
    }
    added["example/clip"].append(add("copy/CLIP", CLIP[:2], "maps of the sea", seed=7, rank=3))
    assert len(build(library)) == 2
    searcher = Searcher(str(library), lambda: encoder)  # type: ignore[arg-type, return-value]
    for base, ids in added.items():
        for identity in ids:
            files = read_adapter_folder(library / "adapters" / identity)
            results = searcher.search(adapter=files)
            assert results[0].id == identity and results[0].score == pytest.approx(1, abs=1e-5)
            assert {r.id for r in results} == {*ids}
            assert {(r.by, r.confidence) for r in results} == {("weights", None)}
        found = searcher.search(TEXTS[1], by="weights", filter=Filter(base=base))
        assert found[0].id == ids[1]
    assert searcher.search(TEXTS[1], by="weights")  # of one of them, as the given one knows none
    described = searcher.search(TEXTS[1])
    assert described[0].by == "description" and described[0].confidence is not None


def test_a_build_fits_anew_where_adapters_came_and_then_alone(library: Path, add: Add) -> None:
    for seed, text in enumerate(TEXTS[:2]):
        add("example/vit", VIT, text, seed=seed)
    first = build(library)
    file = library / "index" / FOLDER / first[0] / "model.safetensors"
    written = file.stat().st_mtime_ns
    assert build(library) == first and file.stat().st_mtime_ns == written
    add("example/vit", VIT, TEXTS[2], seed=2)
    (second,) = build(library)
    assert second != first[0]
    left = {path.name for path in (library / "index").iterdir() if path.name.startswith("weights-")}
    assert left == {f"weights-{second}"}

    file = library / "index" / FOLDER / second / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-8])
    with pytest.raises(IndexDamaged, match="is damaged"):
        own_source(str(library), second)
    assert build(library) == [second] and file.read_bytes() == content


def test_one_description_says_nothing_of_how_adapters_differ(library: Path, add: Add) -> None:
    for seed in range(3):
        add("example/vit", VIT, "an adapter", seed=seed)
    assert build(library) == []
    add("example/vit", [*VIT, "encoder.layer.0.key"], "another adapter", seed=3)
    assert len(build(library)) == 1
