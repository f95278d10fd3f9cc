"""Do weights that follow the noise level beat a static adapter of as many numbers?

    python -m benchmarks.quality.phases_digits --out docs/results/phases-digits.json

A small denoiser of 8 × 8 digits (scikit-learn's, offline) is trained without conditions and then
frozen. What it is conditioned on, a digit's class and the left half of the image, reaches it only
through adapters that Text-to-LoRA makes of that condition, as TC-LoRA (arXiv 2510.09561) does with
its own hypernetwork. All arms have the same steps, images and noise. Losses are mean squared errors
of the velocity on images that neither denoiser nor generator has seen; t is 0 for an image and 1
for noise, and the phase of an adapter.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.quality.digits_denoiser import (
    PIXELS,
    Denoiser,
    Digits,
    Settings,
    batches,
    errors,
    minimise,
    pretrained_denoiser,
    read_digits,
)
from generator.layers.config import TextToLoRAConfig
from generator.models.text_to_lora import TextToLoRA
from generator.phases import interval_middles, phase_adapters
from library.adapter import Adapter, zeros
from library.base.multi_adapter import MultiAdapter, adapted
from library.peft.phases import PhasedAdapter

BREAK_POINTS = [0.25, 0.5, 0.75]
LEVELS = 8  # of noise, at which losses are reported
TRAIN, VALIDATION = 1200, 237  # of 1,797 images; the other 360 are the test
Phases = Callable[[Tensor], Tensor]  # noise levels to the phases of their adapters
AdapterAt = Callable[[float], Adapter]  # a noise level to adapters for all held-out images


def trained_generator(
    model: Denoiser, digits: Digits, s: Settings, seed: int, rank: int, phases: Phases | None
) -> TextToLoRA:
    """Text-to-LoRA from class and left half to adapters; static without `phases`."""
    torch.manual_seed(seed)
    width = digits.known.shape[1]
    config = TextToLoRAConfig(
        width, "L", latent=64, head_in=64, dropout=0.0, phases=phases is not None
    )
    generator = TextToLoRA(config, model.layout(rank))
    rows = torch.arange(s.batch)

    def losses(hooks: MultiAdapter) -> Iterator[Tensor]:
        for some, t, noise in batches(digits, s.steps, s.batch, seed + 1000):
            hooks.set(generator(some.condition(phases(t) if phases else None)), rows)
            yield errors(model, some.images, t, noise).mean()

    with closing(MultiAdapter(model, generator.layout)) as hooks:
        minimise(generator, s.rate, s.steps, losses(hooks))
    return generator.eval()


@torch.no_grad()
def losses_by_level(
    model: Denoiser, digits: Digits, draws: int, adapter_at: AdapterAt
) -> list[float]:
    """Mean error at the middle of each of LEVELS intervals of t, an adapter for each image."""
    generator, n, found = torch.Generator().manual_seed(1), len(digits.images), []
    for t in interval_middles([level / LEVELS for level in range(1, LEVELS)]):
        with adapted(model, adapter_at(t), torch.arange(n)):
            noises = [torch.randn(n, PIXELS, generator=generator) for _ in range(draws)]
            each = [errors(model, digits.images, torch.full((n,), t), x).mean() for x in noises]
        found.append(torch.stack(each).mean().item())
    return found


def interval_phases(t: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """Noise levels to the middles of the intervals that they lie in."""
    middles = torch.tensor(interval_middles(BREAK_POINTS))
    return middles[torch.bucketize(t, torch.tensor(BREAK_POINTS), right=True)]


class Arms:
    """All ways to condition one frozen denoiser, measured on the same held-out images.

    Attributes:
        found: by arm, rank, number of adapters a condition (None: one a step), parameters of its
            generator, and the loss at each level.
    """

    def __init__(self, train: Digits, held_out: Digits, s: Settings, seed: int) -> None:
        self.train, self.held_out, self.settings, self.seed = train, held_out, s, seed
        self.model = pretrained_denoiser(train, s, seed)
        self.found: dict[str, dict[str, Any]] = {}

    def run(self) -> dict[str, dict[str, Any]]:
        r, k = self.settings.rank, len(BREAK_POINTS) + 1
        nothing = zeros(self.model.layout(1), len(self.held_out.images))
        self._measure("no condition", 0, None, lambda _: nothing)
        self._static("static, a k-th of the numbers", r)
        self._static("static", r * k)
        by_interval = self._trained(r, interval_phases)
        self._measure("k adapters", k, by_interval, self._cut(by_interval))
        continuous = self._trained(r, lambda t: t)
        self._measure("continuous", None, continuous, self._at_every_t(continuous))
        self._measure("continuous, cut afterwards", k, continuous, self._cut(continuous))
        return self.found

    def _trained(self, rank: int, phases: Phases | None) -> TextToLoRA:
        return trained_generator(self.model, self.train, self.settings, self.seed, rank, phases)

    def _static(self, name: str, rank: int) -> None:
        generator = self._trained(rank, None)
        with torch.no_grad():
            adapter = generator(self.held_out.condition())
        self._measure(name, 1, generator, lambda _: adapter)

    def _cut(self, generator: TextToLoRA) -> AdapterAt:
        adapters = phase_adapters(generator, self.held_out.condition(), BREAK_POINTS)
        return PhasedAdapter(adapters, BREAK_POINTS).at

    def _at_every_t(self, generator: TextToLoRA) -> AdapterAt:
        return lambda t: generator(self.held_out.condition(torch.tensor([t])))

    def _measure(
        self, name: str, adapters: int | None, generator: TextToLoRA | None, at: AdapterAt
    ) -> None:
        levels = losses_by_level(self.model, self.held_out, self.settings.draws, at)
        self.found[name] = {
            "rank": generator.layout.rank if generator else 0,
            "adapters": adapters,
            "parameters": sum(p.numel() for p in generator.parameters()) if generator else 0,
            "levels": levels,
        }
        print(f"seed {self.seed}: {name:30}{mean(levels):8.4f}", file=sys.stderr)


def summary(by_seed: list[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """Each arm over the seeds, and its difference from the static arm seed by seed."""
    arms = {}
    for name, first in by_seed[0].items():
        levels = [found[name]["levels"] for found in by_seed]
        losses = [mean(one) for one in levels]
        less = [
            a - mean(found["static"]["levels"]) for a, found in zip(losses, by_seed, strict=True)
        ]
        arms[name] = {
            **{key: first[key] for key in ("rank", "adapters", "parameters")},
            "loss": over_seeds(losses),
            "minus_static": over_seeds(less),
            "by_level": [over_seeds(list(values)) for values in zip(*levels, strict=True)],
        }
    return arms


def over_seeds(values: list[float]) -> dict[str, Any]:
    """Mean, standard deviation and the values themselves."""
    spread = stdev(values) if len(values) > 1 else 0.0
    return {"mean": mean(values), "sd": spread, "seeds": values}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=Settings.steps, help="of each generator")
    parser.add_argument("--pretraining-steps", type=int, default=Settings.pretraining_steps)
    parser.add_argument("--rank", type=int, default=Settings.rank, help="of one of k adapters")
    parser.add_argument("--rate", type=float, default=Settings.rate)
    parser.add_argument("--validation", action="store_true", help="to choose settings by")
    parser.add_argument("--out", type=Path, required=True)
    o = parser.parse_args()
    s = Settings(steps=o.steps, pretraining_steps=o.pretraining_steps, rank=o.rank, rate=o.rate)
    torch.set_num_threads(1)
    started, digits = time.process_time(), read_digits()
    validation, test = slice(TRAIN, TRAIN + VALIDATION), slice(TRAIN + VALIDATION, None)
    held_out = digits[validation if o.validation else test]
    by_seed = [Arms(digits[:TRAIN], held_out, s, seed).run() for seed in range(o.seeds)]
    report = {
        "command": " ".join(["python", "-m", "benchmarks.quality.phases_digits", *sys.argv[1:]]),
        "cpu_seconds": round(time.process_time() - started),
        "settings": asdict(s),
        "break_points": BREAK_POINTS,
        "noise_levels": interval_middles([level / LEVELS for level in range(1, LEVELS)]),
        "images": {"train": TRAIN, "held_out": len(held_out.images)},
        "arms": summary(by_seed),
    }
    o.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for name, arm in report["arms"].items():
        loss, less = arm["loss"], arm["minus_static"]
        print(
            f"{name:30}{loss['mean']:8.4f} ±{loss['sd']:.4f}{less['mean']:9.4f} ±{less['sd']:.4f}"
        )


if __name__ == "__main__":
    main()
