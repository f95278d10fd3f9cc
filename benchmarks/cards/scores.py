"""Write scores.json of a shipped generator, which `lorasmith generators` shows, from reports.

python benchmarks/cards/scores.py sg-lora --report docs/results/sg-lora-sample.json
python benchmarks/cards/scores.py multi-task --report docs/results/refine-heldout.json
python benchmarks/cards/scores.py multi-task-qwen2.5-coder-0.5b --method multi-task \
    --report docs/results/second-base-heldout.json

The report is to be of the checkpoint that ships and of the library that `generate` takes by
default; a report names a generator's checkpoint, and that is checked, but not the multi-task
adapter. Times are those of docs/results/generation-time.json, null where it has none of the
checkpoint.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import pretrained
from benchmarks.speed.generation_time import FINISHED
from generator.engine import read_generator
from generator.models.base import registered
from generator.strategies.evidence import SCORES_FILE
from library.canonical import file_digest
from library.peft.write import WEIGHTS_FILE


def held_out(report: Mapping[str, Any], method: str, path: str) -> dict[str, Any]:
    """The means of a method over held-out tasks. Raises SystemExit if there are none."""
    means = [m for m in report["means"] if (m["method"], m["split"]) == (method, "held-out")]
    if not means:
        raise SystemExit(f"{path} has no held-out score of {method}")
    scores = {mean["mode"]: round(mean["rouge_l"], 4) for mean in means}
    return {
        "bare": scores.get("bare"),
        "prompted": scores.get("prompted"),
        "tasks": means[0]["tasks"],
        "report": path,
    }


def measured_seconds(times: Mapping[str, Any], name: str, checkpoint: str) -> float | None:
    """Of one adapter, from request to files; None where this checkpoint was not timed."""
    timed = times["generators"].get(name)
    if timed is None or timed["checkpoint"] != checkpoint:
        return None
    return round(timed["seconds"][FINISHED], 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="of a folder of pretrained/")
    parser.add_argument("--method", help="what the report calls it (default: the name)")
    parser.add_argument("--report", required=True)
    parser.add_argument("--times", type=Path, default=Path("docs/results/generation-time.json"))
    options = parser.parse_args()
    folder = pretrained.folder(options.name)
    report = json.loads(Path(options.report).read_text(encoding="utf-8"))
    if options.name in registered():
        checkpoint = read_generator(folder).digest
        if report["checkpoint"] != checkpoint:
            raise SystemExit(f"{options.report} is of checkpoint {report['checkpoint']}")
    else:
        checkpoint = file_digest(folder / WEIGHTS_FILE)
    times = json.loads(options.times.read_text(encoding="utf-8"))
    scores = {
        "checkpoint": checkpoint,
        "held_out": held_out(report, options.method or options.name, options.report),
        "seconds": measured_seconds(times, options.name, checkpoint),
    }
    text = json.dumps(scores, indent=1) + "\n"
    (folder / SCORES_FILE).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
