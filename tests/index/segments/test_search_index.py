"""The index: what it finds, what changes it, and what it does with files that are not its own."""

import random
from pathlib import Path

import faiss
import numpy as np
import pytest
from vectors import (
    ENCODER,
    WIDTH,
    Adapters,
    addition,
    by_id,
    nearest_ids,
    random_adapter,
    random_queries,
)

from index.encoders.descriptions import EncoderIdentity
from index.segments import faiss_file, segment
from index.segments.change_log import Change
from index.segments.folder import CURRENT
from index.segments.index import VectorIndex
from index.segments.metadata import Filter, entries_of
from index.segments.snapshot import EncoderMismatch, IndexDamaged
from library.errors import OutputError, UnknownName, UsageError

FILTERS = [
    Filter(),
    Filter(base="base1"),
    Filter(recipe="recipe3", license="MIT"),
    Filter(tags=("tag2", "any"), license="permissive"),
]


def ids(index: VectorIndex, query: np.ndarray, k: int, filter: Filter) -> list[str]:
    return [entry.id for _, entry in index.search(query, k, filter)]


def agree(index: VectorIndex, stored: Adapters, seed: int = 0) -> None:
    """The index finds what comparing every vector finds."""
    assert len(index.view) == len(stored)
    for query in random_queries(2, seed):
        for filter in FILTERS:
            if filter.conditions and not nearest_ids(stored, query, 1, filter):
                continue
            for k in (1, 7, 400):
                assert ids(index, query, k, filter) == nearest_ids(stored, query, k, filter)


@pytest.fixture
def full(tmp_path: Path) -> tuple[VectorIndex, Adapters]:
    """300 adapters in a snapshot."""
    adapters = [random_adapter(n) for n in range(300)]
    index = VectorIndex(ENCODER, tmp_path / "index")
    index.compact(addition(adapters))
    return index, by_id(adapters)


def test_it_finds_what_comparing_everything_finds(full: tuple[VectorIndex, Adapters]) -> None:
    index, stored = full
    agree(index, stored)
    query = random_queries(1)[0]
    for score, entry in index.search(query, 300):
        assert score == pytest.approx(float((stored[entry.id][1] @ query).max()), abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_any_sequence_of_changes_is_answered_for(seed: int, tmp_path: Path) -> None:
    """Adding, replacing, removing, compacting, opening again, in this process and in others."""
    rng, stored = random.Random(seed), {}
    index = VectorIndex(ENCODER, tmp_path / "index")
    index.compact()
    other = VectorIndex(ENCODER, tmp_path / "index")
    for version in range(16):
        writer = rng.choice([index, other])
        numbers = rng.sample(range(60), rng.randint(0, 6))
        gone = tuple(rng.sample(sorted(stored), min(len(stored), rng.randint(0, 3))))
        changed = [random_adapter(n, version=version) for n in numbers]
        change = addition(changed, removed=gone)
        for identity in gone:
            stored.pop(identity)
        stored |= by_id(changed)
        if rng.random() < 0.3:
            writer.compact(change)
        else:
            writer.apply(change)
        agree(writer, stored, version)
    for reader in (index, other, VectorIndex(ENCODER, tmp_path / "index")):
        reader.refresh()
        agree(reader, stored)


def test_many_vectors_lie_in_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The index for large libraries: good recall, exact where few adapters are filter."""
    assert faiss_file.factory(50_000) == "IDMap2,Flat"
    assert faiss_file.factory(10**6) == "IVF4000,SQfp16"
    monkeypatch.setattr(faiss_file, "EXACT_UP_TO", 1000)
    monkeypatch.setattr(faiss_file, "PROBED", 90)  # random vectors have no clusters
    adapters = [random_adapter(n) for n in range(1500)]
    index, stored = VectorIndex(ENCODER, tmp_path / "index"), by_id(adapters)
    index.compact(addition(adapters))
    assert isinstance(index.view.snapshot.faiss, faiss.IndexIVF)
    few = Filter(tags=("tag2",), base="base1")
    for limit, least in ((segment.SCAN_UP_TO, 1.0), (0, 0.9)):  # at 0 FAISS is asked in any case
        monkeypatch.setattr(segment, "SCAN_UP_TO", limit)
        hits, all_hits = 0, 0
        for query in random_queries(10):
            assert len(set(ids(index, query, 10, Filter()))) == 10
            few_ids = ids(index, query, 10, few)
            hits += len(set(few_ids) & set(nearest_ids(stored, query, 10, few)))
            all_hits += len(
                set(ids(index, query, 10, Filter())) & set(nearest_ids(stored, query, 10))
            )
        assert hits >= least * 100 and all_hits >= 0.9 * 100
    gone = nearest_ids(stored, random_queries(1)[0], 5)
    index.apply(Change(removed=tuple(gone)))
    assert not set(gone) & set(ids(index, random_queries(1)[0], 50, Filter()))


def test_two_builds_write_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        index = VectorIndex(ENCODER, tmp_path / name)
        index.compact(addition(random_adapter(n) for n in range(50)))
    files = [f.relative_to(tmp_path / "a") for f in (tmp_path / "a").rglob("*") if f.is_file()]
    assert {f.suffix for f in files} >= {".faiss", ".json", ".jsonl", ".safetensors"}
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def others_index() -> bytes:
    """A well-formed FAISS file that answers every search with adapter 0."""
    index = faiss.index_factory(WIDTH, "IDMap2,Flat", faiss.METRIC_INNER_PRODUCT)
    index.add_with_ids(random_queries(300), np.zeros(300, dtype=np.int64))
    return faiss.serialize_index(index).tobytes()


OTHERS = others_index()


@pytest.mark.parametrize(
    "content", [None, b"", b"IxMp" * 99, OTHERS], ids=["absent", "empty", "rubbish", "another"]
)
def test_a_foreign_faiss_file_is_not_read_but_made_again(
    content: bytes | None, full: tuple[VectorIndex, Adapters], tmp_path: Path
) -> None:
    (file,) = (tmp_path / "index").glob("*.faiss")
    written = file.read_bytes()
    file.unlink() if content is None else file.write_bytes(content)
    notes: list[str] = []
    agree(VectorIndex(ENCODER, tmp_path / "index", notes.append), full[1])
    assert file.read_bytes() == written
    assert len(notes) == 1 and str(file) in notes[0]
    agree(VectorIndex(ENCODER, tmp_path / "index", notes.append), full[1])
    assert len(notes) == 1


def test_a_changed_snapshot_is_refused(full: tuple[VectorIndex, Adapters]) -> None:
    folder = Path(full[0].location)
    for file in [*(folder / "000001").iterdir(), folder / CURRENT]:
        content = file.read_bytes()
        changed = b"" if file.name == CURRENT else content.replace(b"0", b"1", 1)
        for damaged in (content[:-9], changed, b""):
            file.write_bytes(damaged)
            with pytest.raises(IndexDamaged, match="index build"):
                VectorIndex(ENCODER, folder)
        file.write_bytes(content)
    agree(VectorIndex(ENCODER, folder), full[1])


def test_a_torn_change_never_happened(full: tuple[VectorIndex, Adapters]) -> None:
    """Cut anywhere, the log says what was said before the cut; the next writer goes on there."""
    index, stored = full
    folder = Path(index.location)
    log = folder / "000001.log"
    index.apply(addition([random_adapter(500)]))
    first = log.stat().st_size
    index.apply(addition([random_adapter(501)]))
    content = log.read_bytes()
    with_first = stored | by_id([random_adapter(500)])
    for cut in (first, first + 1, first + 40, len(content) - 1):
        log.write_bytes(content[:cut])
        opened = VectorIndex(ENCODER, folder)
        assert len(opened.view) == 301
    agree(opened, with_first)
    opened.apply(addition([random_adapter(502)]))
    agree(VectorIndex(ENCODER, folder), with_first | by_id([random_adapter(502)]))
    log.write_bytes(content[:30] + b"x" + content[31:])
    with pytest.raises(IndexDamaged, match="index build"):
        VectorIndex(ENCODER, folder)


def test_another_encoder_is_named(full: tuple[VectorIndex, Adapters]) -> None:
    for other in (
        EncoderIdentity("other", "0" * 64, "", WIDTH),
        EncoderIdentity("tiny", "1" * 64, "", WIDTH),
        EncoderIdentity("tiny", "0" * 64, "query: ", WIDTH),
    ):
        with pytest.raises(EncoderMismatch, match="made with encoder tiny"):
            VectorIndex(other, Path(full[0].location))


def test_wrong_questions(full: tuple[VectorIndex, Adapters]) -> None:
    index, query = full[0], random_queries(1)[0]
    for k in (0, -1, 1001):
        with pytest.raises(UsageError, match="from 1 to 1,000"):
            index.search(query, k)
    for filter in (
        Filter(base="no"),
        Filter(layout="no"),
        Filter(recipe="no"),
        Filter(license="no"),
        Filter(tags=("any", "no")),
    ):
        with pytest.raises(UnknownName, match=r"no adapter with .* 'no'; known: "):
            index.search(query, 3, filter)
    assert index.search(query, 3, Filter(recipe="recipe0", tags=("tag0",), base="base0")) != []
    assert index.search(query, 1, Filter(tags=("tag0", "tag1"))) == []


def test_memory_alone_is_enough(tmp_path: Path) -> None:
    index, adapters = VectorIndex(ENCODER), [random_adapter(n) for n in range(40)]
    index.apply(addition(adapters))
    agree(index, by_id(adapters))
    with pytest.raises(OutputError):
        index.compact()
    (tmp_path / "file").write_text("")
    blocked = VectorIndex(ENCODER, tmp_path / "file" / "index")
    with pytest.raises(OutputError, match="cannot write"):
        blocked.compact(addition(adapters))
    blocked.apply(addition(adapters), persist=False)
    agree(blocked, by_id(adapters))


def test_descriptions_of_records() -> None:
    """Several, each once; what cannot be embedded is left out; one adapter in two records."""
    record = {"id": "ad_1", "task": "t", "base_model": "b", "recipe": "r", "description": "One."}
    many = {**record, "descriptions": [" Two. ", "Two.", "", "x" * 9000, None, "One."]}
    silent = {**record, "id": "ad_2", "description": "  "}
    entries = entries_of([record, many, silent])
    assert list(entries) == ["ad_1"]
    entry, texts = entries["ad_1"]
    assert texts == ["One.", "Two."] and len(entry.texts) == entry.rows == 2
