"""What is known of a generator beside its weights: how much it was trained on, and what it scored.

`scores.json` lies in the folder of a shipped checkpoint. It names the digest of what was measured,
and nothing is said of any other: a researcher's own checkpoint has no scores here.
benchmarks/cards/scores.py writes it from reports.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pretrained
from library.errors import CheckpointError, first_line

SCORES_FILE = "scores.json"


@dataclass(frozen=True)
class GeneratorScores:
    """Mean ROUGE-L, from 0 to 1, over tasks that a generator was not trained on.

    Attributes:
        bare: without the task's instruction in the prompt; None where that was not measured.
        prompted: with it.
        tasks: how many.
        report: file of the evaluation, whose command says with which library.
    """

    bare: float | None
    prompted: float | None
    tasks: int
    report: str


@dataclass(frozen=True)
class Evidence:
    """Of one checkpoint; None where it is not known.

    Attributes:
        trained_on: number of real and authored tasks.
        held_out: scores on others.
        seconds: from a request to the finished files of one adapter, on one CPU thread.
    """

    trained_on: int | None = None
    held_out: GeneratorScores | None = None
    seconds: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def shipped_evidence(name: str, checkpoint: str, trained_on: int | None) -> Evidence:
    """The evidence of a generator's checkpoint: with scores if it is the shipped one.

    Args:
        name: of the shipped folder.
        checkpoint: digest of the checkpoint that is used.
        trained_on: number of tasks, by its own record.
    Raises CheckpointError if the file of scores is damaged.
    """
    file = pretrained.folder(name) / SCORES_FILE
    if not file.is_file():
        return Evidence(trained_on)
    stored = _read(file)
    if stored["checkpoint"] != checkpoint:
        return Evidence(trained_on)
    return Evidence(trained_on, stored["held_out"], stored["seconds"])


def _read(file: Path) -> Mapping[str, Any]:
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        return {
            "checkpoint": stored["checkpoint"],
            "held_out": GeneratorScores(**stored["held_out"]),
            "seconds": stored["seconds"],
        }
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise CheckpointError(f"{file} cannot be read: {first_line(error)}") from error
