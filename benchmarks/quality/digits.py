"""A vision model's adapters regenerated from one sentence each, scored on images.

    python -m benchmarks.quality.digits --out docs/results/digits.json

A ViT learns scikit-learn's 8 × 8 digits; six LoRAs teach it other tasks on them (turned, mirrored,
the next number). They are imported into a library, Text-to-LoRA learns that library by
reconstruction, and what it makes of each description is loaded by PEFT and scored on images that
nothing was trained on. Everything is done by the system's own code but the training of ViT and
LoRAs, which is PEFT's. The descriptions are those of the library: this is about carrying adapters
of a model that is no decoder, not about tasks that are new.
"""

import argparse
import copy
import json
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch
from torch import Tensor
from transformers import ViTConfig, ViTForImageClassification

from benchmarks.quality.architectures import trained
from benchmarks.quality.digits_denoiser import CLASSES, read_digits
from generator.engine import Engine, read_generator
from generator.models.text_to_lora import TextToLoRA
from generator.request import Request
from generator.resources import Resources
from library.base.models import named_base
from library.exchange.importing import ImportRequest, import_adapter
from library.files import write_folder
from library.store.folder import LibraryFolder
from verification.run import reported

BASE = "example/digits-vit"
TRAIN = 1300  # of 1,797 images; the others are the test
BATCH = 64
TARGETS = ["q_proj", "v_proj", "fc1", "fc2"]


def _same(x: Tensor) -> Tensor:
    return x


@dataclass(frozen=True)
class DigitTask:
    """What an adapter is to do: images `[n, 1, 8, 8]` and their labels, changed."""

    description: str
    images: Callable[[Tensor], Tensor] = _same
    labels: Callable[[Tensor], Tensor] = _same


TASKS = (
    DigitTask("digits turned by ninety degrees", images=lambda x: x.rot90(1, (2, 3))),
    DigitTask("digits in negative, black and white swapped", images=lambda x: -x),
    DigitTask("digits seen in a mirror", images=lambda x: x.flip(3)),
    DigitTask("digits upside down", images=lambda x: x.flip(2)),
    DigitTask("say the number that follows the digit", labels=lambda y: (y + 1) % CLASSES),
    DigitTask("say nine minus the digit", labels=lambda y: CLASSES - 1 - y),
)


@dataclass(frozen=True)
class Images:
    """Images and what they show."""

    images: Tensor
    labels: Tensor

    def of(self, task: DigitTask) -> "Images":
        return Images(task.images(self.images), task.labels(self.labels))


def read_images() -> tuple[Images, Images]:
    """Train and test images."""
    digits = read_digits()
    images, labels = digits.images.view(-1, 1, 8, 8), digits.known[:, :CLASSES].argmax(dim=1)
    return Images(images[:TRAIN], labels[:TRAIN]), Images(images[TRAIN:], labels[TRAIN:])


def fit(model: Any, data: Images, epochs: int, rate: float) -> None:
    """AdamW over what is not frozen, one cycle of the rate."""
    torch.manual_seed(0)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=rate)
    steps = epochs * (len(data.labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps)
    model.train()
    for _ in range(epochs):
        order = torch.randperm(len(data.labels))
        for rows in order.split(BATCH)[: steps // epochs]:
            logits = model(pixel_values=data.images[rows]).logits
            loss = torch.nn.functional.cross_entropy(logits, data.labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()


@torch.no_grad()
def accuracy(model: Any, data: Images) -> float:
    """Per cent of images that are answered right."""
    right = model(pixel_values=data.images).logits.argmax(dim=1) == data.labels
    return round(100 * float(right.float().mean()), 1)


def digits_vit(data: Images) -> Any:
    """The base, trained on the digits as they are, and frozen."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
                             "intermediate_size": 96, "image_size": 8, "patch_size": 2,
                             "num_channels": 1, "num_labels": CLASSES}  # fmt: skip
    model = ViTForImageClassification(ViTConfig(**sizes))
    fit(model, data, epochs=25, rate=2e-3)
    return model.requires_grad_(False)


def own_adapter(base: Any, data: Images) -> Any:
    """A LoRA trained on a task's images; all start from one A."""
    torch.manual_seed(7)
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS)
    model = peft.get_peft_model(copy.deepcopy(base), config)
    fit(model, data, epochs=12, rate=5e-3)
    return model


def loaded(base: Any, folder: Path) -> Any:
    """The base with a stored adapter, by PEFT."""
    return peft.PeftModel.from_pretrained(copy.deepcopy(base), str(folder)).eval()


def rows(place: Path, train: Images, test: Images) -> tuple[Any, list[dict[str, Any]]]:
    """The base, and each task's accuracies."""
    base, library = digits_vit(train), LibraryFolder(place / "library")
    # 1. The tasks' own adapters, into a library.
    found: list[dict[str, Any]] = []
    for number, task in enumerate(TASKS):
        model = own_adapter(base, train.of(task))
        model.save_pretrained(str(place / f"own{number}"))
        request = ImportRequest(str(place / f"own{number}"), BASE, f"{number}", task.description)
        import_adapter(library, request, report=lambda files: reported(files).files)
        scores = {"base": accuracy(base, test.of(task)), "own": accuracy(model, test.of(task))}
        found.append({"description": task.description, **scores})
    # 2. One generator for all of them.
    trained(library.location, place / "checkpoint", steps=500)
    engine = Engine([read_generator(place / "checkpoint")], Resources())
    for number, task in enumerate(TASKS):
        made = engine.generate(TextToLoRA.kind, Request(task.description), named_base(BASE))
        write_folder(place / f"made{number}", made.files.files)
    # 3. Scores of what it makes of each description, and of another task's.
    for number, task in enumerate(TASKS):
        other = (number + 1) % len(TASKS)
        for name, which in (("generated", number), ("of another description", other)):
            found[number][name] = accuracy(loaded(base, place / f"made{which}"), test.of(task))
    return base, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    started, (train, test) = time.process_time(), read_images()
    with tempfile.TemporaryDirectory() as place:
        base, found = rows(Path(place), train, test)
    report = {
        "command": " ".join(["python", "-m", "benchmarks.quality.digits", *sys.argv[1:]]),
        "cpu_seconds": round(time.process_time() - started),
        "parameters": sum(p.numel() for p in base.parameters()),
        "images": {"train": len(train.labels), "test": len(test.labels)},
        "base": accuracy(base, test),
        "tasks": found,
        "within a point": sum(row["generated"] >= row["own"] - 1 for row in found),
    }
    options.out.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", "utf-8")
    for row in found:
        print(*row.values(), sep="  ")


if __name__ == "__main__":
    main()
