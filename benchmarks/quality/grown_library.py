"""A library that grew against one that was made at once, and its readers meanwhile.

    python -m benchmarks.quality.grown_library --tasks TASKS/train --first 200 --later 61 \\
        --device cuda --out docs/results/grown-library.json

`trained`: a library is built of the first tasks, and `library add` brings the later ones: it is
killed (SIGKILL) once it has stored an adapter, and run again. `imported`: adapters come by `library
import` from a list, first some, then the others. They are those of `--adapters LIB`, or stand-ins
with the tasks' definitions: the sample's adapters, each at several strengths. Either is compared
with a library that was made of all at once: records, files, and the answers to a search by every
task's definition, at k 10.

While a library grows, a service on it is asked `--rate` times a second
(benchmarks/quality/library_readers.py).
"""

import argparse
import json
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.quality.library_readers import read_all_the_time
from benchmarks.speed.rest_load import ROOT
from index.encoders.descriptions import DescriptionEncoder
from index.search.searcher import Searcher
from library.adapter import Adapter
from library.base.models import resolve_base
from library.factored import inner_products
from library.files import write_file, write_folder
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE, to_peft
from library.store.catalogue import files_of, read_adapter, records
from library.store.folder import LibraryFolder
from library.store.open import open_library
from library.store.records import Record
from library.tasks.files import Task, read_tasks
from lorasmith.libraries import SHIPPED_LIBRARY

OWN = ("created", "shard", "id", "sha256", "scores", "best_step", "steps")  # of one training
NOISE = 1e-5  # between scores; descriptions are embedded in other batches, in float32 or float64
TASK_FILES = (".jsonl.gz", ".jsonl", ".txt", ".json")


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "api", *words]


def run(*words: str) -> float:
    """Run a command of lorasmith's; its seconds."""
    started = time.monotonic()
    subprocess.run(command(*words), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return round(time.monotonic() - started, 1)


def answers(library: Path, tasks: Sequence[Task]) -> list[dict[str, float]]:
    """The tasks that a search by each definition finds, and their scores."""
    encoder = DescriptionEncoder()
    searcher = Searcher(str(library), lambda: encoder)
    found = [searcher.search(task.definition) for task in tasks]
    return [{result.task: result.score for result in results} for results in found]


def compared(grown: Path, whole: Path, tasks: Sequence[Task]) -> dict[str, Any]:
    """Two libraries: adapters, searches, records, and how far trained adapters are apart."""
    run("library", "check", "--library", str(grown))
    ours, theirs = (records(LibraryFolder(library)) for library in (grown, whole))
    found = list(zip(answers(grown, tasks), answers(whole, tasks), strict=True))
    pairs = list(zip(ours, theirs, strict=True))
    equal = [_lasting(a) == _lasting(b) for a, b in pairs]
    return {
        "adapters": len(ours),
        "records_that_differ": equal.count(False),
        "searches": len(found),
        "searches_that_differ": sum(a.keys() != b.keys() or _gap(a, b) > NOISE for a, b in found),
        "largest_gap_of_scores": max(_gap(a, b) for a, b in found),
        "same_bytes": sum(a["id"] == b["id"] and files_of(LibraryFolder(grown), a["id"])
                          == files_of(LibraryFolder(whole), b["id"]) for a, b in pairs),
    }  # fmt: skip


def _gap(a: dict[str, float], b: dict[str, float]) -> float:
    """The largest difference between the scores of what both found."""
    return max(abs(a[task] - b[task]) for task in a.keys() & b.keys())


def _lasting(record: Record) -> Record:
    """What does not differ from one training to the next."""
    return {k: v for k, v in record.items() if k not in OWN}


def apart(a: Adapter, b: Adapter) -> float:
    """‖ΔW − ΔW'‖ / ‖ΔW'‖ over all modules."""

    def inner(x: Adapter, y: Adapter) -> float:
        return sum(
            float(inner_products(*(f[key].double() for f in (x.A, x.B, y.A, y.B))).sum())
            for key in x.A
        )  # fmt: skip

    return max(0.0, (inner(a, a) - 2 * inner(a, b) + inner(b, b)) / inner(b, b)) ** 0.5


def noise(grown: Path, whole: Path, later: Sequence[Task]) -> dict[str, Any]:
    """How far adapters that were added are from those of a build of everything."""
    folders = [LibraryFolder(grown), LibraryFolder(whole)]
    layout, names = folders[0].plan().layout, {task.name for task in later}
    pairs = zip(*([r for r in records(f) if r["task"] in names] for f in folders), strict=True)
    distances, scores = list[float](), list[tuple[float, float]]()
    for a, b in pairs:
        distances.append(apart(*(read_adapter(f, r["id"], layout)
                                 for f, r in zip(folders, (a, b), strict=True))))  # fmt: skip
        scores.append((a["scores"]["tune_accuracy"], b["scores"]["tune_accuracy"]))
    added, at_once = (statistics.mean(column) for column in zip(*scores, strict=True))
    return {
        "delta_apart": {"median": statistics.median(distances), "max": max(distances)},
        "tune_accuracy": {"added": added, "at_once": at_once},
        "tune_accuracy_apart": {"max": max(abs(x - y) for x, y in scores)},
    }


def untouched(library: Path, before: dict[Path, tuple[int, bytes]]) -> bool:
    return all((f.stat().st_mtime_ns, f.read_bytes()) == was for f, was in before.items())


def content(library: Path) -> dict[Path, tuple[int, bytes]]:
    found = [*library.glob("adapters/*/*"), *library.glob("records/*/*.json")]
    return {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in found}


def killed_add(words: list[str], library: Path) -> int:
    """Start an add, kill it once it has stored an adapter; how many were there then."""
    before = len(list(library.glob("records/*/*.json")))
    process = subprocess.Popen(command(*words), cwd=ROOT, stdout=subprocess.DEVNULL)
    while process.poll() is None and len(list(library.glob("records/*/*.json"))) == before:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return len(list(library.glob("records/*/*.json")))


def trained(o: argparse.Namespace, place: Path, first: list[Task], later: list[Task]) -> Any:
    """The part of libraries whose adapters are trained here."""
    grown, whole = place / "grown", place / "whole"
    options, device = o.options.split(), ["--device", o.device]
    tasks = {"first": first, "later": later, "all": [*first, *later]}
    for name, some in tasks.items():
        _task_folder(o.tasks, place / name, some)
    seconds = {
        name: run("library", "build", "--tasks", str(place / part), "--out", str(out), *options,
                  *device)
        for name, part, out in (("first", "first", grown), ("all", "all", whole))
    }  # fmt: skip
    for library in (grown, whole):
        run("index", "build", "--library", str(library))
    before = content(grown)
    add = ["library", "add", "--tasks", str(place / "later"), "--library", str(grown), *device]
    with read_all_the_time(grown, o.rate, o.port) as readers:
        stored = killed_add(add, grown)
        kept = content(grown)
        seconds["add, after the kill"] = run(*add)
    return {
        "options": o.options,
        "seconds": seconds,
        "adapters_when_killed": stored,
        "stored_before_stay": untouched(grown, before) and untouched(grown, kept),
        "readers": readers,
        **compared(grown, whole, tasks["all"]),
        **noise(grown, whole, later),
    }


def imported(o: argparse.Namespace, place: Path, first: list[Task], later: list[Task]) -> Any:
    """The part of libraries whose adapters come from elsewhere."""
    place.mkdir()
    made = _given(o, place) if o.adapters else _stand_ins(place, [*first, *later])
    lists = {"first": made[: len(first)], "later": made[len(first) :], "all": made}
    for name, lines in lists.items():
        text = "".join(json.dumps(line) + "\n" for line in lines)
        write_file(place / f"{name}.jsonl", text.encode())
    grown, whole = place / "grown", place / "whole"

    def bring(name: str, library: Path) -> float:
        source = str(place / f"{name}.jsonl")
        return run("library", "import", source, "--library", str(library), "--base", o.base)

    seconds = {"first": bring("first", grown), "all": bring("all", whole)}
    for library in (grown, whole):
        run("index", "build", "--library", str(library))
    before = content(grown)
    with read_all_the_time(grown, o.rate, o.port) as readers:
        seconds["later"] = bring("later", grown)
    same = [
        (place / line["source"] / WEIGHTS_FILE).read_bytes()
        == (grown / "adapters" / record["id"] / WEIGHTS_FILE).read_bytes()
        for line in made
        for record in records(LibraryFolder(grown))
        if record["task"] == line["task"]
    ]
    return {
        "adapters_are": "given" if o.adapters else "stand-ins: the sample's at other strengths",
        "seconds": seconds,
        "bytes_as_they_came": same.count(True),
        "stored_before_stay": untouched(grown, before),
        "readers": readers,
        **compared(grown, whole, [*first, *later]),
    }


def _stand_ins(place: Path, tasks: Sequence[Task]) -> list[dict[str, str]]:
    """For each task an adapter of the sample, none of them at the same strength as another."""
    sample, lines = open_library(SHIPPED_LIBRARY), []
    plan, shipped = sample.plan(), records(sample)
    for n, task in enumerate(tasks):
        adapter = read_adapter(sample, shipped[n % len(shipped)]["id"], plan.layout)
        made = to_peft(adapter.scaled(1 + n / len(tasks)), base_name=plan.base["id"])
        files = {CONFIG_FILE: made.config_bytes, WEIGHTS_FILE: made.weights}
        write_folder(place / task.name, files)
        lines.append({"source": task.name, "task": task.name, "description": task.definition})
    return lines


def _given(o: argparse.Namespace, place: Path) -> list[dict[str, str]]:
    folder, lines = open_library(o.adapters), []
    for record in records(folder)[: o.first + o.later]:
        found = files_of(folder, record["id"])
        write_folder(place / record["task"], {n: found[n] for n in (CONFIG_FILE, WEIGHTS_FILE)})
        source = {"source": record["task"], "task": record["task"]}
        lines.append({**source, "description": record["description"]})
    return lines


def _task_folder(source: Path, target: Path, tasks: Sequence[Task]) -> None:
    """A folder of some tasks, which has the paraphrases and licences that the source has."""
    target.mkdir(parents=True)
    for task in tasks:
        for suffix in TASK_FILES:
            if (source / f"{task.name}{suffix}").exists():
                (target / f"{task.name}{suffix}").symlink_to(source / f"{task.name}{suffix}")
    for file in [*source.parent.glob("descriptions*.jsonl.gz"), *source.parent.glob("index*.csv")]:
        shutil.copy(file, target / file.name)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--tasks", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--parts", default="imported,trained")
    parser.add_argument("--first", type=int, default=200)
    parser.add_argument("--later", type=int, default=61)
    parser.add_argument("--adapters", help="library whose adapters are imported")
    parser.add_argument("--base", default=resolve_base().name, help="of the imported adapters")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--options", default="", help="more options of library build")
    parser.add_argument("--rate", type=float, default=50, help="requests a second")
    parser.add_argument("--port", type=int, default=8765)
    o = parser.parse_args()
    o.tasks = o.tasks.resolve()
    chosen = read_tasks(o.tasks)[: o.first + o.later]
    step = len(chosen) / max(o.later, 1)  # the later ones are spread evenly over the alphabet
    late = {int(step * n) for n in range(o.later)}
    later = [task for n, task in enumerate(chosen) if n in late]
    first = [task for n, task in enumerate(chosen) if n not in late]
    torch.set_grad_enabled(False)
    report: dict[str, Any] = {"first": len(first), "later": len(later), "device": o.device}
    report |= {"rate": o.rate}
    for name, part in (("imported", imported), ("trained", trained)):
        if name in o.parts.split(","):
            with tempfile.TemporaryDirectory() as folder:
                report[name] = part(o, Path(folder) / name, first, later)
    write_file(o.out, (json.dumps(report, indent=1, sort_keys=True) + "\n").encode())
    print(json.dumps(report, indent=1, sort_keys=True))


if __name__ == "__main__":
    main()
