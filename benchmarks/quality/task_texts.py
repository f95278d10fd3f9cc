"""Vectors of as many different texts of the task files as there are, for benchmarks of the index.

    python benchmarks/quality/task_texts.py --tasks TASKS... --out texts.safetensors [--limit N]

Definitions, summaries, paraphrases, inputs and the sentences of both, each once, of 20 to 200
characters, shuffled with a fixed seed; embedded in float32 by the default encoder. Written every
few thousand texts, so that it may be stopped at any time and goes on where it was.
"""

import argparse
import random
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))

from library.base.packaged import encoder_folder
from library.files import write_file
from library.tasks.files import Task, read_tasks

CHUNK = 8192
SHORTEST, LONGEST = 20, 200


def texts_of(task: Task) -> Iterator[str]:
    """A task's descriptions and inputs, whole and by the sentence."""
    for text in (*task.descriptions, *(row.input for row in task.instances)):
        for part in (text, *re.split(r"(?<=[.!?])\s+|\n+", text)):
            flat = " ".join(part.split())
            if SHORTEST <= len(flat) <= LONGEST:
                yield flat


def different_texts(folders: Sequence[Path]) -> list[str]:
    """Every text once; in an order that depends on the texts alone."""
    tasks = [task for folder in folders for task in read_tasks(folder)]
    texts = sorted({text for task in tasks for text in texts_of(task)})
    random.Random(0).shuffle(texts)
    return texts


def embedded(texts: Sequence[str]) -> Float[Tensor, "n d"]:
    """Unit vectors, shortest texts first for little padding, given back in order."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(encoder_folder()), device="cpu")
    return model.encode(
        list(texts), batch_size=64, convert_to_tensor=True, normalize_embeddings=True
    ).float()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=10**6)
    options = parser.parse_args()
    texts = different_texts(options.tasks)
    print(f"{len(texts)} different texts", flush=True)
    done = load_file(options.out)["vectors"] if options.out.exists() else torch.zeros(0, 384)
    while len(done) < min(len(texts), options.limit):
        part = texts[len(done) : min(len(done) + CHUNK, options.limit)]
        done = torch.cat([done, embedded(part)])
        write_file(options.out, save({"vectors": done}, metadata={"format": "pt"}))
        print(f"{len(done)} embedded", flush=True)


if __name__ == "__main__":
    main()
