"""Half an hour of requests: whether memory stays flat, and time to live holds the disk at a quota.

    pipx install locust
    python -m benchmarks.speed.rest_soak --out docs/results/rest-soak.json

One service with a quota and a time to live; of the requests one in twenty is for an adapter of a
description that nobody had, the others for one that is there. Every few seconds the memory of the
service's process and the bytes of its data folder are read.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.speed.rest_load import (
    ROOT,
    failures,
    figures_of,
    memory_mb,
    rows_of,
    served,
    started,
)
from library.files import write_file

EVERY = 15  # seconds between two samples


def disk_mb(folder: Path) -> float:
    """Bytes of all files in a folder, whichever go meanwhile."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_size
            except FileNotFoundError:
                continue
    return total / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=1800)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--quota-bytes", type=int, default=10**9)
    parser.add_argument("--ttl", type=int, default=20)
    parser.add_argument("--locust", default="locust", help="its command")
    parser.add_argument("--port", type=int, default=8792)
    parser.add_argument("--out", type=Path, required=True)
    o = parser.parse_args()
    settings = ["--quota-bytes", str(o.quota_bytes), "--ttl", str(o.ttl)]
    samples: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as data, tempfile.TemporaryDirectory() as folder:
        with served(ROOT, o.port, Path(data), settings) as (url, process):
            begin = time.monotonic()
            run = started(o.locust, url, "mixed", o.clients, o.seconds, folder)
            while run.poll() is None:
                samples.append(
                    {
                        "seconds": round(time.monotonic() - begin, 1),
                        "memory_mb": memory_mb(process),
                        "disk_mb": disk_mb(Path(data)),
                    }
                )
                time.sleep(EVERY)
        report = {
            "command": " ".join(["python", "-m", "benchmarks.speed.rest_soak", *sys.argv[1:]]),
            "cores": os.cpu_count(),
            "kinds": [
                {"kind": "new" if row["Name"] == "new" else "cached", **figures_of(row)}
                for row in rows_of(folder)
            ],
            "failures": failures(folder),
            "samples": samples,
        }
    write_file(o.out, (json.dumps(report, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
