"""Whole requests whose inputs are written from the description: seconds, and what comes of them.

    python -m benchmarks.speed.written_inputs --out docs/results/written-requests.json

Each is `lorasmith generate --write-inputs` as a process of its own, models loaded within; CPU
seconds are of the process and those that it starts. The answers are to texts that were written
before any request was tried.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from library.files import write_file

COUNT = 64
REQUESTS = {
    "Customers write to a bike shop. Sort each message: repair, order, rental or complaint. "
    "Answer with the one word, lowercase.": [
        "my brakes squeal, can somebody have a look on friday?",
        "do you have e-bikes for a weekend trip for two?",
        "this is the third time the wheel came back bent, I'm fed up",
        "I'd like the blue helmet in size M, delivered to my home",
    ],
    "Give me the email address in the text, nothing else": [
        "You can reach Ann at ann.lee@acme.org from Monday.",
        "Write to support+eu@shop.example, please",
        "no mail here: call 555-0199",
    ],
}


def measured(description: str, texts: list[str], more: list[str]) -> dict[str, Any]:
    """One request, with these flags: its seconds, its training, and the adapter's answers."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "api", "generate", description, *more]
        command += ["--json", "--out", f"{folder}/adapter"]
        for text in texts:
            command += ["--try", text]
        environment = {**os.environ, "LORASMITH_DATA": f"{folder}/data"}
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        seconds, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    made = json.loads(done.stdout)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "seconds": round(seconds, 1), "cpu_seconds": round(spent, 1), "sha256": made["sha256"],
        "refined": made["refined"],
        "answers": {tried["input"]: tried["adapted"] for tried in made["tries"]},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    o = parser.parse_args()
    rows = [
        {
            "description": description,
            "written": measured(description, texts, ["--write-inputs", str(COUNT)]),
            "teacher": measured(description, texts, ["--generator", "multi-task"]),
        }
        for description, texts in REQUESTS.items()
    ]
    report = {
        "command": " ".join(["python", "-m", "benchmarks.speed.written_inputs", *sys.argv[1:]]),
        "cores": os.cpu_count(), "inputs": COUNT, "requests": rows,
    }  # fmt: skip
    write_file(o.out, (json.dumps(report, indent=1, ensure_ascii=False) + "\n").encode())
    print(json.dumps(report, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
