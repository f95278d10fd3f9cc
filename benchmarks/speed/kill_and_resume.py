"""A build that is killed again and again, against one that is left alone.

    python benchmarks/speed/kill_and_resume.py --tasks TASKS --out docs/results/kill-and-resume.json

Builds a library, undisturbed; then another, killed (SIGKILL) `--kills` times, each time some while
after it has stored one adapter more, and resumed. With `--workers` or `--executor ray` it is one
of the workers that is killed. Compares ids, digests, records (less `created`) and, with `--score`,
the mean ROUGE-L on the test rows; says whether an adapter that was stored was ever written again.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def build(o: argparse.Namespace, out: Path) -> "subprocess.Popen[bytes]":
    arguments = ["library", "build", "--tasks", str(o.tasks), "--out", str(out), "--resume"]
    arguments += ["--device", o.device, *o.options.split()]
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    command = [sys.executable, "-m", "api", *arguments]
    quiet: Any = subprocess.DEVNULL
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=quiet, stderr=quiet)


def stored(out: Path) -> dict[str, dict[str, Any]]:
    """Records by task and variant, less the time."""
    entries = [json.loads(file.read_text()) for file in out.glob("records/*/*.json")]
    return {f"{r['task']}.{r['variant']}": {k: v for k, v in r.items() if k != "created"}
            for r in entries}  # fmt: skip


def files(out: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(f.relative_to(out)): (f.stat().st_mtime_ns, f.read_bytes())
        for f in out.glob("adapters/ad_*/*")
    }


def victim(process: "subprocess.Popen[bytes]", workers: bool) -> int:
    """The build itself, or one of its workers."""
    if not workers:
        return process.pid
    listing = subprocess.run(
        ["ps", "-wweo", "pid=,args="], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    marks = ("ray::run_shard", "multiprocessing.spawn import spawn_main")
    pids = [int(line.split()[0]) for line in listing if any(m in line for m in marks)]
    return random.choice(pids) if pids else process.pid


def disturbed(o: argparse.Namespace, out: Path, rng: random.Random) -> tuple[int, int]:
    """Build with kills; how many there were, and how often a stored file was written again."""
    workers = any(word in o.options for word in ("--workers", "ray"))
    kills, rewritten, process = 0, 0, build(o, out)
    while kills < o.kills:
        before = files(out)
        while process.poll() is None and len(stored(out)) * 3 <= len(before):
            time.sleep(0.005)
        time.sleep(rng.random() * o.delay)
        if process.poll() is not None:
            break
        os.kill(victim(process, workers), signal.SIGKILL)
        kills += 1
        if not workers:
            process.wait()
            process = build(o, out)
        now = files(out)
        rewritten += sum(name in now and now[name] != was for name, was in before.items())
    before = files(out)
    if process.wait() != 0:
        sys.exit("the last build failed")
    now = files(out)
    return kills, rewritten + sum(now[name] != was for name, was in before.items())


def score(o: argparse.Namespace, library: Path) -> float:
    """Mean ROUGE-L x 100 of the library's adapters on their test rows."""
    report = library.with_suffix(".json")
    arguments = ["evaluate", "--tasks", str(o.tasks), "--library", str(library), "--device"]
    arguments += [o.device, "--methods", "oracle", "--out", str(report), "--overwrite"]
    subprocess.run([sys.executable, "-m", "api", *arguments], cwd=ROOT, check=True)
    rows = json.loads(report.read_text())["rows"]
    return 100 * sum(row["rouge_l"] for row in rows) / len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--options", default="", help="more options of library build")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--delay", type=float, default=2.0, help="longest wait before a kill, s")
    parser.add_argument("--score", action="store_true")
    o = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        alone, killed = Path(folder) / "alone", Path(folder) / "killed"
        if build(o, alone).wait() != 0:
            sys.exit("the undisturbed build failed")
        kills, rewritten = disturbed(o, killed, random.Random(0))
        resumed, unbroken = stored(killed), stored(alone)
        result: dict[str, Any] = {
            "device": o.device,
            "options": o.options,
            "kills": kills,
            "adapters": len(unbroken),
            "same_set": resumed.keys() == unbroken.keys(),
            "same_records": resumed == unbroken,
            "same_files": {k: v[1] for k, v in files(killed).items()}
            == {k: v[1] for k, v in files(alone).items()},
            "stored_files_written_again": rewritten,
        }
        if o.score:
            result["scores"] = {"alone": score(o, alone), "killed": score(o, killed)}
    o.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
