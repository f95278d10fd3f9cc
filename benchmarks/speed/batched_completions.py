"""Tokens a second of completions that come at once, each under another adapter, and one by one.

    python -m benchmarks.speed.batched_completions --out docs/results/batched-completions.json

This checkout's service is started with an empty store and makes eight adapters. Then the same
requests of 32 tokens at temperature 0 are sent by 1, 4 and 8 clients, one after another and all at
once, which take turns for some rounds; numbers are medians of the rounds. `ratio` is how many times
as many tokens a second come at once, `cpu_ratio` how many times as many for the service's CPU time,
which other work on the cores changes least. `unequal` counts answers that had other tokens at once
than one by one, and `logprob_difference` is the largest between equal tokens before they differ.
"""

import argparse
import json
import os
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import takewhile
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.speed.rest_load import ROOT, cpu_ms, served
from library.files import write_file

DESCRIPTIONS = [
    "Write a short story about the thing in the text.",
    "Explain the idea in the text to a child.",
    "Rewrite the sentence as a long and polite letter.",
    "Give step by step instructions for what the text asks.",
    "Say whether the review is positive or negative, and argue at length why.",
    "Continue the text in the style of a newspaper.",
    "Write questions that the text answers.",
    "Translate the sentence into French and explain each word.",
]
PROMPTS = [
    "The old lighthouse keeper counted the ships that came home before the storm, and",
    "Water rises as a gas",
    "We regret that the parcel, which was sent on Monday from the northern depot, is",
    "To repair a bicycle tyre",
    "The film was long, but its ending, for which nobody in the hall had been prepared, made",
    "On Tuesday the council of the town decided",
    "Bees find their way by the sun",
    "The bridge between the two villages was built in a summer by everybody who had hands, so",
]
TOKENS = 32
CLIENTS = (1, 4, 8)


class Client:
    """Asks the service at a URL, which is a process of this machine."""

    def __init__(self, url: str, process: int) -> None:
        self._process = process
        self._http = httpx.Client(base_url=f"{url}/v1", timeout=300)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._http.post(path, json=body).raise_for_status().json()

    def requests(self) -> list[dict[str, Any]]:
        """Requests for completions, each by a new adapter."""
        made = [self.post("/adapters", {"description": text})["id"] for text in DESCRIPTIONS]
        common = {"max_tokens": TOKENS, "temperature": 0, "logprobs": 0}
        return [
            {"model": model, "prompt": prompt, **common}
            for model, prompt in zip(made, PROMPTS, strict=True)
        ]

    def timed(self, asked: list[dict[str, Any]], at_once: int) -> tuple[float, float, list[Any]]:
        """Tokens a second of all requests, CPU ms a token, and the answers."""
        start, spent = time.perf_counter(), cpu_ms(self._process)
        with ThreadPoolExecutor(at_once) as pool:
            answers = list(pool.map(lambda body: self.post("/completions", body), asked))
        seconds, spent = time.perf_counter() - start, cpu_ms(self._process) - spent
        tokens = sum(answer["usage"]["completion_tokens"] for answer in answers)
        found = [answer["choices"][0]["logprobs"] for answer in answers]
        return tokens / seconds, spent / tokens, found


def compared(one: list[Any], other: list[Any]) -> dict[str, Any]:
    """How answers differ: how many, and by how much before they do."""
    unequal, differences = 0, [0.0]
    for first, second in zip(one, other, strict=True):
        unequal += first["tokens"] != second["tokens"]
        both = zip(first["tokens"], second["tokens"], strict=False)
        same = len(list(takewhile(lambda pair: pair[0] == pair[1], both)))
        pairs = zip(first["token_logprobs"][:same], second["token_logprobs"], strict=False)
        differences += [abs(a - b) for a, b in pairs]
    return {"unequal": unequal, "logprob_difference": max(differences)}


def measured(client: Client, asked: list[dict[str, Any]], rounds: int) -> dict[str, Any]:
    """The same requests in both ways, in turns."""
    ways = {"one_after_another": 1, "at_once": len(asked)}
    runs = [{way: client.timed(asked, n) for way, n in ways.items()} for _ in range(rounds)]
    speed, faster = (statistics.median(run[way][0] for run in runs) for way in ways)
    cost, cheaper = (statistics.median(run[way][1] for run in runs) for way in ways)
    one, other = (runs[-1][way][2] for way in ways)
    return {
        "clients": len(asked), "tokens": sum(len(answer["tokens"]) for answer in one),
        "one_after_another": _figures(speed, cost), "at_once": _figures(faster, cheaper),
        "ratio": round(faster / speed, 2), "cpu_ratio": round(cost / cheaper, 2),
        **compared(one, other),
    }  # fmt: skip


def _figures(tokens_per_second: float, cpu_ms_per_token: float) -> dict[str, float]:
    return {
        "tokens_per_second": round(tokens_per_second, 1),
        "cpu_ms_per_token": round(cpu_ms_per_token, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--port", type=int, default=8792)
    parser.add_argument("--out", type=Path, required=True)
    o = parser.parse_args()
    load = os.getloadavg()[0]
    with served(ROOT, o.port) as (url, process):
        client = Client(url, process)
        asked = client.requests()
        client.timed(asked, len(asked))  # loads the base
        runs = [measured(client, asked[:clients], o.rounds) for clients in CLIENTS]
    command = ["python", "-m", "benchmarks.speed.batched_completions", *sys.argv[1:]]
    report = {
        "command": " ".join(command),
        "threads": os.environ.get("OMP_NUM_THREADS"), "cores": os.cpu_count(),
        "load_before": round(load, 1), "load_at_end": round(os.getloadavg()[0], 1),
        "rounds": o.rounds, "runs": runs,
    }  # fmt: skip
    write_file(o.out, (json.dumps(report, indent=1) + "\n").encode())
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
