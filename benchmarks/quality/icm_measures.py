"""Measures of generated adapters against those that a generator was trained on."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from generator.layers.flattened import flatten, tensor_sizes, unflatten
from generator.models.base import Condition
from generator.models.icm_lora import ICMLoRA
from library.adapter import Adapter, stack, zeros
from library.factored import squared_delta_distance

CHUNK = 256  # training adapters of one matrix of distances


def cosines(made: Adapter, wanted: Adapter) -> dict[str, float]:
    """Mean cosine of ΔW, row by row: over all modules, and by module type."""
    dots, sizes = {}, {}
    for group in made.layout.groups:
        pairs = [(f.A[group.key], f.B[group.key]) for f in (made, wanted)]
        nothing = zeros(made.layout, len(made), device=pairs[0][0].device)
        none = (nothing.A[group.key], nothing.B[group.key])
        first, second, apart = (
            squared_delta_distance(*left, *right).sum(dim=1)  # (n, sites) to (n,)
            for left, right in ((pairs[0], none), (pairs[1], none), (pairs[0], pairs[1]))
        )
        dots[group.key], sizes[group.key] = (first + second - apart) / 2, (first, second)
    found = {key: _cosine(dots[key], *sizes[key]) for key in dots}
    total = [sum(size[side] for size in sizes.values()) for side in (0, 1)]
    return {"all": _cosine(sum(dots.values()), *total), **found}


def _cosine(dot: Any, first: Any, second: Any) -> float:
    return round((dot / (first * second).clamp_min(1e-30).sqrt()).mean().item(), 4)


def nearest(made: Adapter, stock: Adapter) -> tuple[Float[Tensor, " n"], Int[Tensor, " n"]]:
    """Distance of ΔW to the nearest of a stock, relative to that one's size, and which it is."""
    own = torch.stack([_size(made[[i]]) for i in range(len(made))])  # (n,)
    distances = []
    for start in range(0, len(stock), CHUNK):
        part = stock[list(range(start, min(start + CHUNK, len(stock))))]
        sizes = torch.stack([_size(part[[i]]) for i in range(len(part))])
        dots = made.inner_products(part).sum(dim=-1)  # (n, chunk)
        squared = own[:, None] + sizes - 2 * dots
        distances.append((squared.clamp_min(0) / sizes).sqrt())
    return torch.cat(distances, dim=1).min(dim=1)


def _size(one: Adapter) -> Float[Tensor, ""]:
    """‖ΔW‖² of one adapter."""
    return one.inner_products(one).sum()


def reconstruction(
    module: ICMLoRA, condition: Condition, finals: Adapter, means: Adapter
) -> dict[str, Any]:
    """Cosines of ΔW with the training adapters, and the KL of their posterior in nats."""
    made, terms = module.posterior(condition, finals)
    task = condition.task
    assert task is not None
    swapped = module(Condition(task=task.roll(-1, dims=0)))
    source = finals[torch.arange(len(finals)).roll(-1)]
    soup = unflatten(finals.layout, flatten(means).mean(0, keepdim=True).expand(len(finals), -1))
    return {
        "cosine_posterior": cosines(made, finals),
        "cosine_generated": cosines(module(condition), finals),
        "cosine_swapped_with_own": cosines(swapped, finals),
        "cosine_swapped_with_source": cosines(swapped, source),
        "cosine_mean_of_snapshots": cosines(means, finals),
        "cosine_mean_of_all": cosines(soup, finals),
        "kl_nats": round(terms["kl"].item(), 5),
    }


def variance(
    module: ICMLoRA, samples: Sequence[Adapter], states: Sequence[Adapter]
) -> dict[str, float]:
    """Mean variance of an entry within a task, in squared standard deviations of its tensor.

    Args:
        samples: adapters of all tasks, one `Adapter` for each seed, two at least.
        states: each task's own adapter and snapshots.
    """
    drawn = torch.stack([module.scores(flatten(one)) for one in samples])  # (seeds, tasks, values)
    moved = (flatten(one).to(drawn) for one in states)
    within = torch.stack([module.scores(values).var(dim=0).mean() for values in moved])
    generated, trained = drawn.var(dim=0).mean().item(), within.mean().item()
    return {"samples": generated, "snapshots": trained, "ratio": generated / max(trained, 1e-30)}


def memorisation(
    samples: Adapter, finals: Adapter, states: Sequence[Adapter], seed: int = 0
) -> dict[str, Any]:
    """Distances to the nearest training adapter of samples, and of controls that copy; on the CPU.

    The controls are the mean of each task's states, and its adapter with Gaussian noise as large as
    its snapshots vary, tensor by tensor.
    """
    samples, finals, stock = samples.to("cpu"), finals.to("cpu"), stack(list(states))
    owners = torch.tensor([i for i, rows in enumerate(states) for _ in range(len(rows))])
    generator = torch.Generator().manual_seed(seed)
    noisy, means = [], []
    for index, rows in enumerate(states):
        values, own = flatten(rows), flatten(finals[[index]])
        parts = values.var(dim=0).split(tensor_sizes(rows.layout))
        size = torch.cat([part.mean().sqrt().expand(len(part)) for part in parts])
        noise = torch.randn(own.shape, generator=generator)
        noisy.append(unflatten(rows.layout, own + noise * size))
        means.append(unflatten(rows.layout, values.mean(dim=0, keepdim=True)))
    found = {}
    controls = {"mean_of_snapshots": stack(means), "noise_added": stack(noisy)}
    for name, adapters in {"samples": samples, **controls}.items():
        distance, row = nearest(adapters, stock)
        tasks = torch.arange(len(adapters)) % len(states)
        found[name] = {
            "distance": round(distance.mean().item(), 4),
            "nearest_is_of_own_task": round((owners[row] == tasks).float().mean().item(), 4),
        }
    return found
