"""The index with 10^4, 10^5 and 10^6 adapters: build, memory, latency under writes, recall.

    python benchmarks/quality/task_texts.py --tasks TASKS... --out texts.safetensors
    python benchmarks/speed/faiss_scale.py --texts texts.safetensors --tasks TASKS... --out \
        scale.json

One vector an adapter. As far as they go these are vectors of real task texts; the rest are those
again, each moved as far and in such a direction as one paraphrase of a task lies from another:
unit(v + p − q) with two paraphrases p and q of one random task. Queries are real paraphrases. While
clients search, a writer adds 100 adapters a second, ten at a time, each batch on the disk before
the next. Up to 10^5 a snapshot of everything is written and swapped in meanwhile. The peer, in the
same run: the same FAISS index asked directly, without writer, delta or filter.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.quality.described import Rows, described
from index.encoders.descriptions import DEFAULT_ENCODER, EncoderIdentity
from index.segments import faiss_file
from index.segments.change_log import Change
from index.segments.index import VectorIndex
from index.segments.metadata import IndexEntry
from library.files import write_file

K, QUERIES, RATE, BATCH = 10, 500, 100, 10
MOST_SWAPPED = 10**5


def paraphrase_pairs(
    folders: list[Path], count: int, rng: np.random.Generator
) -> tuple[Rows, Rows]:
    """Differences between two paraphrases of one task, and other paraphrases to ask with."""
    groups = [d.paraphrases for d in described(folders) if len(d.paraphrases) > 3]
    queries = np.concatenate([group[:2] for group in groups])
    picked = [groups[i][2:] for i in rng.integers(len(groups), size=min(count, 20_000))]
    moves = np.stack([np.subtract(*rng.choice(g, 2, replace=False)) for g in picked])
    return moves, rng.permutation(queries)[:QUERIES]


def spread(real: Rows, moves: Rows, size: int, rng: np.random.Generator) -> tuple[Rows, int]:
    """`size` vectors, and how many of them are real."""
    if size <= len(real):
        return real[:size].copy(), size
    out = np.empty((size, real.shape[1]), dtype=np.float32)
    out[: len(real)] = real
    for start in range(len(real), size, 50_000):
        part = slice(start, min(size, start + 50_000))
        count = part.stop - part.start
        rows = (
            real[rng.integers(len(real), size=count)] + moves[rng.integers(len(moves), size=count)]
        )
        out[part] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return out, len(real)


def entry(number: int) -> IndexEntry:
    return IndexEntry(f"ad_{number:040x}", f"task{number}", "base", "layout", "lora",
                      ("permissive",), (), (f"{number:x}",))  # fmt: skip


def exact(vectors: Rows, queries: Rows) -> list[set[int]]:
    """The K nearest of all, for each query."""
    best = np.full((len(queries), 0), 0.0, dtype=np.float32)
    ids = np.zeros((len(queries), 0), dtype=np.int64)
    for start in range(0, len(vectors), 100_000):
        scores = queries @ vectors[start : start + 100_000].T
        nearest = np.argpartition(-scores, K, axis=1)[:, :K]
        best = np.concatenate([best, np.take_along_axis(scores, nearest, 1)], axis=1)
        ids = np.concatenate([ids, nearest + start], axis=1)
    order = np.argsort(-best, axis=1)[:, :K]
    return [set(row) for row in np.take_along_axis(ids, order, 1).tolist()]


def quantiles(seconds: list[float]) -> dict[str, Any]:
    p50, p99 = np.quantile(np.array(seconds) * 1000, [0.5, 0.99])
    return {"p50_ms": round(float(p50), 3), "p99_ms": round(float(p99), 3), "n": len(seconds)}


class Writer(threading.Thread):
    """Adds RATE adapters a second until it is stopped."""

    def __init__(self, index: VectorIndex, vectors: Rows, first: int) -> None:
        super().__init__()
        self.index, self.vectors, self.first, self.added = index, vectors, first, 0
        self.stopped = threading.Event()

    def run(self) -> None:
        begun = time.perf_counter()
        while not self.stopped.is_set() and self.added + BATCH <= len(self.vectors):
            rows = self.vectors[self.added : self.added + BATCH]
            numbers = range(self.first + self.added, self.first + self.added + BATCH)
            self.index.apply(Change(tuple(entry(n) for n in numbers), rows))
            self.added += BATCH
            time.sleep(max(0.0, begun + self.added / RATE - time.perf_counter()))
        self.seconds = time.perf_counter() - begun


def ask(index: VectorIndex, queries: Rows, clients: int, seconds: float) -> dict[str, Any]:
    """Latency of searches by so many clients at once, and how many answers were not whole."""
    times: list[float] = []
    torn: list[int] = []
    end = time.perf_counter() + seconds

    def client(number: int) -> None:
        query = number
        while (begun := time.perf_counter()) < end:
            hits = index.search(queries[query % len(queries)], K)
            times.append(time.perf_counter() - begun)
            scores = [score for score, _ in hits]
            if len({e.id for _, e in hits}) != K or scores != sorted(scores, reverse=True):
                torn.append(query)
            query += clients

    threads = [threading.Thread(target=client, args=(n,)) for n in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {**quantiles(times), "per_second": round(len(times) / seconds), "torn": len(torn)}


def peer(index: VectorIndex, queries: Rows) -> dict[str, Any]:
    """FAISS asked directly."""
    times = []
    for query in np.concatenate([queries] * 4):
        begun = time.perf_counter()
        faiss_file.search_faiss(index.view.snapshot.faiss, query, K)
        times.append(time.perf_counter() - begun)
    return quantiles(times)


def lost(folder: Path, encoder: EncoderIdentity, vectors: Rows, first: int, added: int) -> int:
    """Number of added adapters that a fresh reader does not find by their own vector."""
    fresh = VectorIndex(encoder, folder)
    missing = 0
    for number in range(added):
        hits = fresh.search(vectors[number], 3)
        missing += f"ad_{first + number:040x}" not in {e.id for _, e in hits}
    return missing


@dataclass(frozen=True)
class Data:
    """The vectors and queries of one size; `more` is for the writer to add."""

    vectors: Rows
    more: Rows
    queries: Rows
    real: int

    @property
    def size(self) -> int:
        return len(self.vectors)


def prepared(options: argparse.Namespace, size: int) -> Data:
    rng = np.random.default_rng(0)
    real = load_file(options.texts)["vectors"]
    moves, queries = paraphrase_pairs(options.tasks, size, rng)
    late = RATE * int(3 * options.seconds + 60)
    vectors, count = spread(rng.permutation(real), moves, size + late, rng)
    more = vectors[rng.permutation(len(vectors))[:late]]
    more += 1e-3 * rng.normal(size=more.shape).astype(np.float32)  # none is there already
    more /= np.linalg.norm(more, axis=1, keepdims=True)
    return Data(vectors[:size], more, queries, min(count, size))


def built(index: VectorIndex, data: Data, folder: Path) -> dict[str, Any]:
    """Write the first snapshot; its recall, and what FAISS alone takes."""
    begun = time.perf_counter()
    index.compact(Change(tuple(entry(n) for n in range(data.size)), data.vectors))
    seconds = time.perf_counter() - begun
    answers = [{int(e.id[3:], 16) for _, e in index.search(q, K)} for q in data.queries]
    truth = exact(data.vectors, data.queries)
    hits = sum(len(a & b) for a, b in zip(answers, truth, strict=True))
    files = [p for p in sorted(folder.iterdir()) if p.suffix in (".faiss", "")]
    return {
        "adapters": data.size,
        "vectors of real texts": data.real,
        "factory": faiss_file.factory(data.size),
        "probed lists": faiss_file.PROBED if data.size > faiss_file.EXACT_UP_TO else None,
        "build_seconds": round(seconds, 1),
        "files_mb": {p.suffix or "snapshot": round(_bytes(p) / 1e6, 1) for p in files},
        "recall_at_10": round(hits / (K * len(data.queries)), 4),
        "peer: FAISS alone": peer(index, data.queries),
    }


def served(index: VectorIndex, data: Data, folder: Path, seconds: float) -> dict[str, Any]:
    """Searches by one client, then by eight, with a writer all the time and a swap."""
    writer = Writer(index, data.more, data.size)
    writer.start()
    report = {"1 client": ask(index, data.queries, 1, seconds)}
    swap = threading.Thread(target=index.compact) if data.size <= MOST_SWAPPED else None
    if swap:
        swap.start()
    report["8 clients"] = ask(index, data.queries, 8, seconds)
    if swap:
        swap.join()
    writer.stopped.set()
    writer.join()
    report["writer"] = {
        "added": writer.added,
        "per_second": round(writer.added / writer.seconds, 1),
        "lost": lost(folder, index.encoder, data.more, data.size, writer.added),
        "snapshots swapped meanwhile": int(swap is not None),
    }
    return report


def measure(options: argparse.Namespace, size: int) -> dict[str, Any]:
    data = prepared(options, size)
    encoder = EncoderIdentity(DEFAULT_ENCODER, "benchmark", "", data.vectors.shape[1])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        index = VectorIndex(encoder, path)
        report = built(index, data, path)
        report |= served(index, data, path, options.seconds)
    report["peak_memory_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    report["load_average"] = round(os.getloadavg()[0], 1)
    one, alone = report["1 client"]["p50_ms"], report["peer: FAISS alone"]["p50_ms"]
    report["p50 of 1 client, FAISS alone = 1"] = round(one / alone, 2)
    return report


def _bytes(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.iterdir())


def in_processes(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Each size in a process of its own, whose memory is its own."""
    reports = []
    for size in options.sizes:
        part = options.out.with_suffix(f".{size}.json")
        arguments = ["--texts", options.texts, "--out", part, "--sizes", str(size)]
        arguments += ["--seconds", str(options.seconds), "--tasks", *options.tasks]
        subprocess.run([sys.executable, __file__, *map(str, arguments)], check=True)
        reports += json.loads(part.read_text())["sizes"]
        part.unlink()
    return reports


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--tasks", type=Path, nargs="+", required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10**4, 10**5, 10**6])
    parser.add_argument("--seconds", type=float, default=10, help="of searching, for each row")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    alone = len(options.sizes) == 1
    reports = [measure(options, options.sizes[0])] if alone else in_processes(options)
    import faiss

    result = {
        "command": "python benchmarks/speed/faiss_scale.py --texts texts.safetensors "
        "--tasks train train_extra public_heldout",
        "machine": {"cpus": os.cpu_count(), "cpu": platform.machine(), "faiss": faiss.__version__},
        "vectors": "real texts of the tasks; beyond them unit(v + p - q), v real and p, q "
        "paraphrases of one task",
        "sizes": sorted(reports, key=lambda report: report["adapters"]),
    }
    write_file(options.out, (json.dumps(result, indent=1) + "\n").encode())
    print(json.dumps(reports, indent=1))


if __name__ == "__main__":
    main()
