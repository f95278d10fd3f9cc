"""An index that is read while it is changed, and one whose writer is killed."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny
from vectors import ENCODER, WIDTH, IndexEntry, addition, random_adapter, random_queries, unit

from index.segments.folder import IndexFolder
from index.segments.index import VectorIndex

BATCH = 5  # adapters that are added, and removed, together


def batch(number: int) -> list[tuple[IndexEntry, np.ndarray]]:
    return [random_adapter(1000 + BATCH * number + i, tag=f"batch{number}") for i in range(BATCH)]


def test_a_snapshot_is_not_served_before_its_log(tmp_path: Path) -> None:
    """A log that takes long to read is read before anybody sees its snapshot."""
    index, other = (VectorIndex(ENCODER, tmp_path / "index") for _ in range(2))
    index.compact(addition(random_adapter(n) for n in range(100)))
    for number in range(200):
        index.apply(addition([random_adapter(1000 + number)]))
    lengths, done = set(), threading.Event()

    def watch() -> None:
        while not done.is_set():
            lengths.add(len(other.view))

    thread = threading.Thread(target=watch)
    thread.start()
    other.refresh()
    done.set()
    thread.join()
    assert lengths <= {0, 300} and len(other.view) == 300


def test_readers_see_every_change_whole(tmp_path: Path) -> None:
    """Batches come and go, snapshots are swapped; no search sees a part of a batch."""
    path = tmp_path / "index"
    index, other = (VectorIndex(ENCODER, path) for _ in range(2))
    index.compact(addition(random_adapter(n) for n in range(100)))
    index.apply(addition(batch(0)))
    done, torn, counts = threading.Event(), [], [0] * 4

    def read(reader: VectorIndex, name: int) -> None:
        rng = np.random.default_rng(name)
        while not done.is_set():
            reader.refresh()
            query = unit(rng.normal(size=WIDTH))
            hits = reader.search(query, 1000)
            tags = [entry.tags[0] for _, entry in hits]
            sizes = {tag: tags.count(tag) for tag in tags if tag.startswith("batch")}
            scores = [score for score, _ in hits]
            complete = set(sizes.values()) <= {BATCH} and len(tags) - sum(sizes.values()) == 100
            if not complete or len(sizes) not in (1, 2) or scores != sorted(scores, reverse=True):
                torn.append((sizes, len(tags)))
            counts[name] += 1

    readers = [
        threading.Thread(target=read, args=(reader, n))
        for n, reader in enumerate((index, index, other, other))
    ]
    for thread in readers:
        thread.start()
    for number in range(1, 40):
        index.apply(addition(batch(number)))
        gone = tuple(entry.id for entry, _ in batch(number - 1))
        if number % 8 == 0:
            index.compact(addition([], removed=gone))
        else:
            index.apply(addition([], removed=gone))
    done.set()
    for thread in readers:
        thread.join()
    assert torn == [] and min(counts) > 5
    fresh = VectorIndex(ENCODER, path)
    assert {entry.id for entry in fresh.view.entries()} == {
        entry.id for entry in index.view.entries()
    }
    assert len(list(path.glob("*.faiss"))) == 2


def test_two_writers_lose_nothing(tmp_path: Path) -> None:
    """Threads of two openings of one index add and compact at once."""
    path = tmp_path / "index"
    writers = [VectorIndex(ENCODER, path) for _ in range(2)]
    writers[0].compact(addition([random_adapter(0)]))

    def write(writer: VectorIndex, first: int) -> None:
        for number in range(first, first + 30):
            writer.apply(addition([random_adapter(number)]))
            if number % 10 == 0:
                writer.compact()

    threads = [
        threading.Thread(target=write, args=(writer, 100 * n + 100 * m))
        for n, writer in enumerate(writers)
        for m in (1, 5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stored = {entry.id for entry in VectorIndex(ENCODER, path).view.entries()}
    numbers = {n for first in (100, 200, 500, 600) for n in range(first, first + 30)}
    assert stored == {f"ad_{n:040}" for n in {0} | numbers}


# A child that writes snapshot after snapshot, each large enough to be met half-written; all its
# adapters carry the number of their writing as their recipe.
WRITER = """
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
import numpy as np
from index.segments.change_log import Change
from index.segments.index import VectorIndex
from vectors import ENCODER, random_adapter
index = VectorIndex(ENCODER, Path(sys.argv[1]))
adapters = [random_adapter(n) for n in range(6000)]
vectors = np.concatenate([vectors for _, vectors in adapters])
print("ready", flush=True)
for number in range(1000):
    entries = tuple(replace(entry, recipe=str(number)) for entry, _ in adapters)
    index.compact(Change(entries, vectors))
"""


def half_written(folder: IndexFolder) -> bool:
    return any(name[0] == "." and ".json" not in name for name in os.listdir(folder.path))


def not_yet_current(folder: IndexFolder) -> bool:
    current = folder.current()
    return current is not None and folder.last_generation() > current.generation


@pytest.mark.slow
@pytest.mark.parametrize("moment", [half_written, not_yet_current])
def test_a_writer_that_is_killed_leaves_the_snapshot_before(
    moment: Callable[[IndexFolder], bool], tmp_path: Path
) -> None:
    folder = IndexFolder(tmp_path / "index")
    reader = VectorIndex(ENCODER, folder.path)
    reader.compact(addition([random_adapter(0)]))
    first = folder.current()
    writer = tiny.start_python(WRITER, str(folder.path))
    try:
        assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
        while folder.current() == first or not moment(folder):
            assert writer.poll() is None
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    assert writer.returncode == -signal.SIGKILL
    reader.refresh()
    for index in (reader, VectorIndex(ENCODER, folder.path)):
        entries = list(index.view.entries())
        assert len(entries) == 6000 and len({entry.recipe for entry in entries}) == 1
        assert len(index.search(random_queries(1)[0], 10)) == 10
    reader.compact(addition([random_adapter(0)]))  # the next start is clean
    current = folder.current()
    assert current is not None
    stems = {name.split(".")[0] for name in os.listdir(folder.path)} - {"current", "build", "write"}
    assert all(name.isdecimal() for name in stems) and len(stems) == 2, stems
    assert len(VectorIndex(ENCODER, folder.path).view) == 6000
