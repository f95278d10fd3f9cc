"""What a newcomer gets: nine requests with a few examples, and new inputs with right answers.

    python -m benchmarks.quality.newcomer --out docs/results/newcomer.json

The requests are in newcomer.json beside this file; they were written before any was tried. Right is
an answer that is exactly the expected one. `bare` counts those of an adapter that `text-to-lora`
makes of the description alone, without the instruction in the prompt. It takes ten minutes on two
cores.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

import lorasmith

REQUESTS = Path(__file__).with_suffix(".json")


def answered(
    request: dict[str, Any], examples: list[tuple[str, str]], **how: Any
) -> dict[str, Any]:
    """The adapter for a request, and how it answers the new inputs."""
    begun = time.perf_counter()
    adapter = lorasmith.generate(request["description"], examples=examples, **how)
    seconds = time.perf_counter() - begun
    answers = lorasmith.answer([text for text, _ in request["inputs"]], adapter)
    pairs = zip(answers, request["inputs"], strict=True)
    wrong = [(text, answer) for answer, (text, right) in pairs if answer != right]
    return {
        "seconds": round(seconds, 1),
        "right": len(answers) - len(wrong),
        "of": len(answers),
        "wrong": wrong,
        "held_out": (adapter.summary["refined"] or {}).get("held_out"),
        "expected": adapter.summary["expected"],
        "verdict": adapter.summary["report"]["verdict"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out, rows = parser.parse_args().out, []
    for request in json.loads(REQUESTS.read_text()):
        row = {"task": request["task"], **answered(request, request["examples"])}
        without = answered(request, [])
        row |= {"without_examples": without["right"], "without_verdict": without["verdict"]}
        row["bare"] = answered(request, [], generator="text-to-lora", mode="bare")["right"]
        rows.append(row)
        print(json.dumps(row, ensure_ascii=False), flush=True)
    report = {
        "command": f"python -m benchmarks.quality.newcomer --out {out}",
        "device": f"cpu, {torch.get_num_threads()} threads",
        "rows": rows,
    }
    out.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
