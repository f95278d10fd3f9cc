"""Search by weights: what it must not see, what it follows, and what it says when it cannot."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.cli.main import main
from index.encoders.descriptions import DEFAULT_ENCODER, DescriptionEncoder
from index.encoders.weights import (
    WeightEncoder,
    WeightEncoderConfig,
    load_weight_encoder,
)
from index.search.confidence import shipped_confidence
from index.search.query import NotSearchable
from index.search.searcher import Result, Searcher
from index.search.sources import DescriptionSource, WeightSource
from index.search.sync import build_index
from index.segments.folder import IndexFolder
from library.adapter import Adapter, zeros
from library.checkpoint import CheckpointInfo, save_checkpoint
from library.errors import UsageError
from library.exchange.importing import ImportRequest, import_adapter
from library.layout import Layout, layout_of
from library.peft.folder import read_adapter_folder
from library.peft.provenance import PROVENANCE_FILE
from library.peft.read import read_peft
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE, to_peft
from library.store.folder import LibraryFolder

BASE, COUNT = "someone/tiny-llama", 6


def layout(rank: int = 4, targets: list[str] | None = None) -> Layout:
    return layout_of(tiny.config("llama"), targets, rank=rank)


def adapter(number: int) -> Adapter:
    """Of a rank of its own."""
    return tiny.adapter(layout(1 + number % 4), seed=number)


def written(folder: Path, adapter: Adapter, base: str = BASE) -> Path:
    """An adapter folder as anybody's trainer leaves it: config and weights."""
    files = to_peft(adapter, base_name=base, profile="lossless")
    folder.mkdir(parents=True)
    (folder / CONFIG_FILE).write_bytes(files.config_bytes)
    (folder / WEIGHTS_FILE).write_bytes(files.weights)
    return folder


def add(library: Path, adapter: Adapter, task: str, base: str = BASE) -> str:
    source = written(library.parent / "sources" / task, adapter, base)
    request = ImportRequest(str(source), task=task)
    return import_adapter(LibraryFolder(str(library)), request).record["id"]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library of adapters that nobody described."""
    library = tmp_path_factory.mktemp("filled") / "library"
    for number in range(COUNT):
        add(library, adapter(number), f"task{number}")
    return library


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Indexes of their own; the converted base and encoders stay where they are."""
    monkeypatch.setenv("LORASMITH_CACHE", str(tmp_path / "cache"))


def checkpoint(folder: Path, seed: int = 0) -> Path:
    """A weight encoder with random maps."""
    encoder = WeightEncoder(WeightEncoderConfig(384, directions=8, dimension=16), layout())
    tiny.randomise(encoder, seed=seed)
    info = CheckpointInfo({"id": BASE, "sha256": None, "source": "random"}, DEFAULT_ENCODER)
    save_checkpoint(folder, encoder, info, storage="float32")
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> WeightEncoder:
    return load_weight_encoder(checkpoint(tmp_path_factory.mktemp("weights") / "encoder"))


def no_encoder() -> DescriptionEncoder:
    raise AssertionError("weights are compared without the description encoder")


def searcher(
    library: Path, weights: WeightEncoder, note: Callable[[str], None] = print
) -> Searcher:
    return Searcher(str(library), no_encoder, lambda: weights, note=note)


def alike(first: list[Result], second: list[Result]) -> bool:
    close = [
        a.score == pytest.approx(b.score, abs=1e-5) for a, b in zip(first, second, strict=True)
    ]
    return [r.id for r in first] == [r.id for r in second] and all(close)


def test_an_adapter_finds_itself_first_and_says_by_what(
    filled: Path, weights: WeightEncoder
) -> None:
    search = searcher(filled, weights).search
    for number in range(COUNT):
        source = filled.parent / "sources" / f"task{number}"
        results = search(adapter=read_adapter_folder(source))
        assert len(results) == COUNT and results[0].task == f"task{number}"
        assert results[0].score == pytest.approx(1, abs=1e-6)
        assert {r.by for r in results} == {"weights"}
        assert results == search(adapter=read_adapter_folder(source), by="weights")
        assert results[:2] == search(adapter=read_adapter_folder(source), k=2)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
@given(number=st.integers(0, COUNT - 1), seed=st.integers(0, 99), pad=st.integers(0, 3))
def test_what_does_not_change_the_adapter_does_not_change_the_results(
    filled: Path, weights: WeightEncoder, number: int, seed: int, pad: int
) -> None:
    """Another gauge, another order of the ranks, zero ranks, another strength."""
    plain = adapter(number)
    rank, generator = plain.layout.rank, torch.Generator().manual_seed(seed)
    g = torch.linalg.qr(torch.randn(rank, rank, generator=generator)).Q * 3
    order = torch.randperm(rank, generator=generator)
    turned = {k: torch.linalg.solve(g, a)[..., order, :] for k, a in plain.A.items()}
    b = {k: (x @ g)[..., order] for k, x in plain.B.items()}
    same = Adapter(plain.layout, turned, b).with_rank(rank + pad).scaled(0.25)
    files = to_peft(same, base_name=BASE, profile="lossless")
    query = {CONFIG_FILE: files.config_bytes, WEIGHTS_FILE: files.weights}
    search = searcher(filled, weights).search
    source = read_adapter_folder(filled.parent / "sources" / f"task{number}")
    assert alike(search(adapter=query), search(adapter=source))


def test_metadata_does_not_count(filled: Path, weights: WeightEncoder, tmp_path: Path) -> None:
    """Neither of the adapter that is asked by nor of those in the library."""
    identity = next((filled / "adapters").iterdir())
    expected = searcher(filled, weights).search(adapter=read_adapter_folder(identity))
    bare = tmp_path / "bare"
    shutil.copytree(identity, bare)
    (bare / PROVENANCE_FILE).unlink()
    assert searcher(filled, weights).search(adapter=read_adapter_folder(bare)) == expected
    config = json.loads((bare / CONFIG_FILE).read_text())
    (bare / CONFIG_FILE).write_text(json.dumps({**config, "base_model_name_or_path": None}))
    (bare / WEIGHTS_FILE).rename(bare / "lora.safetensors")
    files = read_adapter_folder(bare / "lora.safetensors")
    assert searcher(filled, weights).search(adapter=files) == expected
    described = tmp_path / "described"
    shutil.copytree(filled, described)
    for file in described.glob("records/*/*.json"):
        record = json.loads(file.read_text())
        file.write_text(json.dumps({**record, "description": "", "tags": ["any"]}))
    assert searcher(described, weights).search(adapter=files) == expected


def test_the_index_follows_the_library(
    filled: Path, weights: WeightEncoder, tmp_path: Path
) -> None:
    library = tmp_path / "library"
    shutil.copytree(filled, library)
    build_index(str(library), WeightSource(weights))
    opened = searcher(library, weights)
    new = tiny.adapter(layout(3), seed=50)
    files = to_peft(new, base_name=BASE, profile="lossless")
    query = {CONFIG_FILE: files.config_bytes, WEIGHTS_FILE: files.weights}
    before = opened.search(adapter=query)
    identity = add(library, new, "new")
    assert opened.search(adapter=query) == before
    opened.follow()
    for now in (opened, searcher(library, weights)):
        results = now.search(adapter=query)
        assert results[0].id == identity and alike(results[1:], before)
    assert main(["library", "remove", "new", "--library", str(library)]) == 0
    opened.follow()
    for now in (opened, searcher(library, weights)):
        assert alike(now.search(adapter=query), before)
    assert not (tmp_path / "cache" / "indexes").exists()  # its own index is what follows


def test_what_cannot_be_compared_is_left_out(
    filled: Path, weights: WeightEncoder, tmp_path: Path
) -> None:
    library = tmp_path / "library"
    shutil.copytree(filled, library)
    add(library, tiny.adapter(layout(2, ["k_proj"]), seed=1), "other modules")
    add(library, adapter(1), "other base", "someone/else")
    add(library, zeros(layout(2)), "nothing")
    same = add(library, tiny.adapter(layout(2), seed=77), "a copy", "my/models/Tiny-Llama/")
    foreign = tmp_path / "foreign" / "library"
    add(foreign, adapter(1), "other base", "someone/else")
    notes: list[str] = []
    query = read_adapter_folder(filled.parent / "sources" / "task1")
    assert searcher(foreign, weights, notes.append).search(adapter=query) == []
    assert notes == ["the library holds no adapter whose weights can be compared"]
    index = searcher(library, weights).index("weights")
    assert len(index.view) == COUNT + 1
    assert same in {entry.id for entry in index.view.entries()}


def test_an_index_of_another_weight_encoder_is_replaced(
    filled: Path, weights: WeightEncoder, tmp_path: Path
) -> None:
    library = tmp_path / "library"
    shutil.copytree(filled, library)
    other = load_weight_encoder(checkpoint(tmp_path / "other", seed=1))
    query = read_adapter_folder(filled.parent / "sources" / "task1")
    expected = {w.digest: searcher(filled, w).search(adapter=query) for w in (weights, other)}
    assert not alike(expected[weights.digest], expected[other.digest])
    build_index(str(library), WeightSource(weights))
    for encoder, count in ((weights, 0), (other, 1), (other, 0), (weights, 1)):
        notes: list[str] = []
        results = searcher(library, encoder, notes.append).search(adapter=query)
        assert alike(results, expected[encoder.digest])
        assert len(notes) == count and all("it is replaced" in note for note in notes)


def cannot(files: dict[str, bytes], library: Path, weights: WeightEncoder, **how: Any) -> str:
    with pytest.raises(NotSearchable) as error:
        searcher(library, weights).search(adapter=files, **how)
    return str(error.value)


def test_an_adapter_that_cannot_be_compared_is_told_why(
    filled: Path, weights: WeightEncoder, tmp_path: Path
) -> None:
    sound = dict(read_adapter_folder(filled.parent / "sources" / "task1"))
    wrong = {
        f"it is for someone/else, and the weight encoder is for {BASE}": read_adapter_folder(
            written(tmp_path / "base", adapter(1), "someone/else")
        ),
        "changes none of the 4 modules": read_adapter_folder(
            written(tmp_path / "modules", tiny.adapter(layout(2, ["k_proj"])))
        ),
        "its ΔW is zero": read_adapter_folder(written(tmp_path / "zero", zeros(layout(2)))),
        f"has no {WEIGHTS_FILE}": {CONFIG_FILE: sound[CONFIG_FILE]},
        "cannot be read": {**sound, WEIGHTS_FILE: sound[WEIGHTS_FILE][:-9]},
        "more than plain LoRA": {
            **sound, CONFIG_FILE: json.dumps({**json.loads(sound[CONFIG_FILE]), "use_dora": True})
            .encode(),
        },
    }  # fmt: skip
    for words, files in wrong.items():
        sentence = cannot(dict(files), filled, weights)
        assert words in sentence and "holds no description" in sentence and "\n" not in sentence
        assert words in cannot(dict(files), filled, weights, by="weights")
    assert "holds no description" in cannot(sound, filled, weights, by="description")
    with pytest.raises(UsageError, match="a text, or an adapter"):
        searcher(filled, weights).search()


def test_descriptions_stand_in_and_texts_reach_weights(
    filled: Path, weights: WeightEncoder, encoder: DescriptionEncoder, tmp_path: Path
) -> None:
    """Which of the two was compared is in every result; a note says why weights were not."""
    notes: list[str] = []
    opened = Searcher(str(filled), lambda: encoder, lambda: weights, note=notes.append)
    folder = next((filled / "adapters").iterdir())
    files = dict(read_adapter_folder(folder))
    task = json.loads(files[PROVENANCE_FILE])["description"]
    config = {**json.loads(files[CONFIG_FILE]), "base_model_name_or_path": "someone/else"}
    foreign = {**files, CONFIG_FILE: json.dumps(config).encode()}
    results = opened.search(adapter=foreign)
    assert results == opened.search(task) and results[0].task == task
    assert {r.by for r in results} == {"description"}
    assert len(notes) == 1 and "its description is compared instead" in notes[0]
    with pytest.raises(NotSearchable):
        opened.search(adapter=foreign, by="weights")
    assert opened.search(adapter=files, by="description") == results

    by_text = opened.search(task, by="weights")
    described = weights.describe(encoder.vectors([task]))[0]
    for result in by_text:
        adapter = weights.encode(read_peft(filled / "adapters" / result.id))[0]
        assert result.score == pytest.approx(float(described @ adapter), abs=1e-6)
        assert result.by == "weights"
    encoded = weights.encode(read_peft(folder))[0]
    for result in opened.search(task, files):
        adapter = weights.encode(read_peft(filled / "adapters" / result.id))[0]
        mean = torch.nn.functional.normalize(0.2 * described + encoded, dim=0)
        assert result.score == pytest.approx(float(mean @ adapter), abs=1e-6)
    weights.info, info = replace(weights.info, encoder="another"), weights.info
    with pytest.raises(UsageError, match=r"through another, not sentence-transformers"):
        opened.search(task, by="weights")
    weights.info = info


# A child that brings the index of a library up to date; told so, it says when it reads, and waits.
WRITER = """
import sys, time
from pathlib import Path
from index.encoders.weights import load_weight_encoder
from index.search.sources import WeightSource
from index.search.sync import build_index
class Source(WeightSource):
    def vectors(self, library, adapters):
        if sys.argv[3] == "reading":
            print("reading", flush=True)
            time.sleep(60)
        return super().vectors(library, adapters)
build_index(sys.argv[1], Source(load_weight_encoder(Path(sys.argv[2]))))
"""


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["reading", "snapshot"])
def test_a_build_that_is_killed_leaves_the_index_before(
    moment: str, filled: Path, tmp_path: Path
) -> None:
    library, encoder = tmp_path / "library", checkpoint(tmp_path / "encoder")
    shutil.copytree(filled, library)
    weights = load_weight_encoder(encoder)
    build_index(str(library), WeightSource(weights))
    folder = IndexFolder(library / "index" / "weights")
    before = {file: file.read_bytes() for file in folder.path.rglob("*") if file.is_file()}
    add(library, tiny.adapter(layout(3), seed=50), "new")
    with folder.locked("write"):  # the child can write a snapshot, and cannot swap
        writer = tiny.start_python(WRITER, str(library), str(encoder), moment)
        try:
            if moment == "reading":
                assert writer.stdout is not None and writer.stdout.readline() == "reading\n"
            while moment == "snapshot" and folder.last_generation() == 1:
                assert writer.poll() is None
        finally:
            writer.send_signal(signal.SIGKILL)
            writer.wait()
    assert {file: file.read_bytes() for file in before} == before
    index = build_index(str(library), WeightSource(weights))
    assert len(index.view) == COUNT + 1
    stems = {name.split(".")[0] for name in os.listdir(folder.path)} - {"current", "build", "write"}
    assert all(name.isdecimal() for name in stems) and len(stems) == 2, stems


def test_both_indexes_lie_side_by_side(
    filled: Path, weights: WeightEncoder, encoder: DescriptionEncoder, tmp_path: Path
) -> None:
    library = tmp_path / "library"
    shutil.copytree(filled, library)
    for contents in (WeightSource(weights), DescriptionSource(encoder), WeightSource(weights)):
        assert len(build_index(str(library), contents).view) == COUNT
    opened = Searcher(str(library), lambda: encoder, lambda: weights)
    assert opened.search("task3")[0].task == "task3"
    assert opened.search("task3", by="weights") != opened.search("task3")


def test_the_calibration_is_of_the_shipped_weight_encoder() -> None:
    file = tiny.ROOT / "index" / "search" / "weight_confidence.json"
    assert json.loads(file.read_text())["weight encoder"] == load_weight_encoder().digest
    for kind in ("text", "adapter", "both"):
        calibration = shipped_confidence(kind)
        for fixed in (-0.5, 0.0, 0.3, 0.9):
            for values in (
                [calibration.confidence(x / 20, fixed) for x in range(-20, 21)],
                [calibration.confidence(fixed, x / 20) for x in range(-20, 21)],
            ):
                assert values == sorted(values) and values[0] >= 0 and values[-1] <= 1
        assert calibration.confidence(0.9, 0.4) > 0.6 > 0.2 > calibration.confidence(0.1, -0.1)
