"""A small denoiser of 8 × 8 digits, and what is known of an image: its class and its left half."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from generator.layers.phase import FREQUENCIES, phase_features
from generator.models.base import Condition
from index.encoders.descriptions import Embeddings
from library.layout import Layout, Site

PIXELS, CLASSES = 64, 10


@dataclass(frozen=True)
class Settings:
    """Sizes and steps, the same for all arms."""

    width: int = 64
    depth: int = 2
    rank: int = 2
    pretraining_steps: int = 1500
    steps: int = 600
    batch: int = 64
    rate: float = 3e-3
    draws: int = 4  # of noise for each held-out image and level


class Block(nn.Module):
    """A residual MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(nn.functional.silu(self.up(self.norm(x))))


class Denoiser(nn.Module):
    """The velocity ε - x of a rectified flow from the noisy image (1 - t)·x + t·ε and t."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.enter = nn.Linear(PIXELS + 2 * FREQUENCIES, width)
        self.layers = nn.ModuleList(Block(width) for _ in range(depth))
        self.leave = nn.Linear(width, PIXELS)

    def forward(
        self, noisy: Float[Tensor, "n pixels"], t: Float[Tensor, "n"]
    ) -> Float[Tensor, "n pixels"]:
        x = self.enter(torch.cat([noisy, phase_features(t)], dim=1)[:, None])  # (n, 1, width)
        for layer in self.layers:
            x = layer(x)
        return self.leave(x)[:, 0]

    def layout(self, rank: int) -> Layout:
        """Every linear layer, at one rank."""
        sites = [
            Site(name, module.in_features, module.out_features, rank)
            for name, module in self.named_modules()
            if isinstance(module, nn.Linear)
        ]
        return Layout("", len(self.layers), tuple(sites))


@dataclass(frozen=True)
class Digits:
    """Images in [-1, 1] and what is known of them: class and left half, as a unit vector."""

    images: Float[Tensor, "n pixels"]
    known: Float[Tensor, "n d"]

    def __getitem__(self, rows: slice | Int[Tensor, "m"]) -> "Digits":
        return Digits(self.images[rows], self.known[rows])

    def condition(self, phase: Tensor | None = None) -> Condition:
        """The condition of a generator that reads pooled vectors alone."""
        n = len(self.known)
        tokens = self.known[:, None]
        mask = torch.ones(n, 1, dtype=torch.bool)
        return Condition(Embeddings(self.known, tokens, tokens, mask), phase=phase)


def read_digits() -> Digits:
    """scikit-learn's 1,797 digits in an order that is always the same."""
    from sklearn.datasets import load_digits

    found: Any = load_digits()
    order = torch.randperm(len(found.target), generator=torch.Generator().manual_seed(0))
    images = torch.tensor(found.images, dtype=torch.float32)[order] / 8 - 1  # (n, 8, 8)
    classes = nn.functional.one_hot(torch.tensor(found.target)[order], CLASSES).float()
    # Both parts weigh alike: a class is one number, a half 32 of about one each.
    known = torch.cat([classes * 32**0.5, images[:, :, :4].flatten(1)], dim=1)
    return Digits(images.flatten(1), nn.functional.normalize(known))


def batches(
    digits: Digits, steps: int, size: int, seed: int
) -> Iterator[tuple[Digits, Tensor, Tensor]]:
    """Rows, noise levels spread evenly over [0, 1], and noise; the same for every arm of a seed."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = torch.randint(len(digits.images), (size,), generator=generator)
        t = (torch.arange(size) + torch.rand(size, generator=generator)) / size
        yield digits[rows], t, torch.randn(size, PIXELS, generator=generator)


def errors(model: Denoiser, images: Tensor, t: Tensor, noise: Tensor) -> Float[Tensor, "n"]:
    """Squared error of the velocity, averaged over pixels."""
    noisy = (1 - t)[:, None] * images + t[:, None] * noise
    return (model(noisy, t) - (noise - images)).square().mean(dim=1)


def minimise(module: nn.Module, rate: float, steps: int, losses: Iterator[Tensor]) -> None:
    """Adam with a rate that falls linearly to zero; gradients have norm 1 at most."""
    optimizer = torch.optim.Adam(module.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    for loss in losses:
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        schedule.step()


def pretrained_denoiser(digits: Digits, s: Settings, seed: int) -> Denoiser:
    """The denoiser without conditions, frozen."""
    torch.manual_seed(seed)
    model = Denoiser(s.width, s.depth)
    given = batches(digits, s.pretraining_steps, s.batch, seed)
    losses = (errors(model, some.images, t, noise).mean() for some, t, noise in given)
    minimise(model, s.rate, s.pretraining_steps, losses)
    return model.requires_grad_(False)
