"""ICM-LoRA: zero at the start, listens to the task vector, row by row, drawn by the seed alone."""

from pathlib import Path

import pytest
import tiny
import torch
from torch import Tensor

from generator.engine import read_generator
from generator.layers.flattened import flatten, tensor_sizes, unflatten
from generator.models.base import Condition
from generator.models.icm_lora import ICMLoRA, ICMLoRAConfig
from library.adapter import Adapter, stack
from library.base.models import load_config, resolve_base
from library.checkpoint import (
    CHECKPOINT_CONFIG,
    CHECKPOINT_WEIGHTS,
    CheckpointInfo,
    save_checkpoint,
)
from library.errors import UsageError
from library.layout import Layout, Site, layout_of
from training.objectives.reconstruction import mean_squared_error

WIDTH = 6
SMALL = ICMLoRAConfig(WIDTH, latent=5, channels=(4, 8, 4))
LAYOUT = Layout(
    "mixed",
    2,
    (
        Site("m.layers.0.attn.q", 10, 10, 3),
        Site("m.layers.0.attn.v", 10, 7, 2),
        Site("m.layers.1.attn.q", 10, 10, 1),
    ),
)


def vectors(n: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 5 + torch.randn(n, WIDTH, generator=generator, dtype=torch.float64)


def made() -> ICMLoRA:
    """Random weights and the statistics of random adapters; in eval mode."""
    torch.manual_seed(0)
    module = ICMLoRA(SMALL, LAYOUT).double()
    module.prepare(tiny.adapter(LAYOUT, 8, dtype=torch.float64), vectors(8))
    tiny.randomise(module)
    for name, buffer in module.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(std=0.1)
    return module.eval()


def test_before_training_nothing_changes() -> None:
    module = ICMLoRA(SMALL, LAYOUT).double().eval()
    tiny.randomise(module)
    adapter = module(Condition(task=vectors(3)))
    assert len(adapter) == 3 and adapter.is_zero()
    for site in LAYOUT.sites:
        assert adapter.site(site)[0].any()  # A is there, so that B has a gradient


def test_a_batch_is_its_rows_one_by_one() -> None:
    module, tasks = made(), vectors(4)
    targets = tiny.adapter(LAYOUT, 4, seed=3, dtype=torch.float64)
    together = module(Condition(task=tasks, seed=7))
    rebuilt, _ = module.posterior(Condition(task=tasks), targets)
    for i in range(4):
        one = Condition(task=tasks[[i]], seed=7)
        torch.testing.assert_close(flatten(module(one)), flatten(together[[i]]))
        alone, _ = module.posterior(one, targets[[i]])
        torch.testing.assert_close(flatten(alone), flatten(rebuilt[[i]]))
    assert not torch.allclose(flatten(together[[0]]), flatten(together[[1]]), rtol=1e-2)


def test_the_seed_alone_decides_what_is_drawn() -> None:
    module, tasks = made(), vectors(2)
    first = flatten(module(Condition(task=tasks, seed=1)))
    torch.manual_seed(5)
    assert torch.equal(flatten(module(Condition(task=tasks, seed=1))), first)
    assert not torch.allclose(flatten(module(Condition(task=tasks, seed=2))), first, rtol=1e-2)
    target = tiny.adapter(LAYOUT, 2, dtype=torch.float64)
    kept = [flatten(module.posterior(Condition(task=tasks), target)[0]) for _ in range(2)]
    assert torch.equal(*kept)  # in eval mode nothing is drawn
    module.train()
    drawn = [flatten(module.posterior(Condition(task=tasks), target)[0]) for _ in range(2)]
    assert not torch.allclose(*drawn, rtol=1e-2)


def test_padding_is_zero_for_the_encoder_and_counts_nowhere() -> None:
    module, condition = made(), Condition(task=vectors(2))
    values, seen = sum(tensor_sizes(LAYOUT)), []
    assert module.length > values and module.length % 8 == 0 and module.length - values < 8
    target = tiny.adapter(LAYOUT, 2, dtype=torch.float64)
    module.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    before, _ = module.posterior(condition, target)
    assert not seen[0][:, values:].any() and seen[0][:, :values].any()
    # Whatever the decoder writes there changes neither adapter nor gradient.
    outputs = []

    def scribble(_: object, args: object, output: Tensor) -> Tensor:
        noisy = output.clone()
        noisy[:, values:] = 1e9
        noisy.retain_grad()
        outputs.append(noisy)
        return noisy

    module.decoder.register_forward_hook(scribble)
    after, _ = module.posterior(condition, target)
    assert torch.equal(flatten(before), flatten(after))
    mean_squared_error(after, target).backward()
    assert not outputs[0].grad[:, values:].any() and outputs[0].grad[:, :values].any()


def trained(module: ICMLoRA, targets: Adapter, tasks: Tensor, steps: int) -> list[float]:
    """Losses of a short training; the KL in nats of the last step comes last."""
    module.prepare(targets, tasks)
    unit = module.scores.deviation.repeat_interleave(module.scores.sizes)
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)
    losses = []
    kl = torch.zeros(())
    for _ in range(steps):
        adapter, terms = module.posterior(Condition(task=tasks), targets)
        kl = terms["kl"]
        loss = mean_squared_error(adapter, targets, unit) + 0.005 * kl
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return [*losses, kl.item()]


def test_the_task_vector_decides_and_swapped_vectors_give_swapped_adapters() -> None:
    torch.manual_seed(0)
    goals = tiny.adapter(LAYOUT, 2, seed=4)
    owners = [0, 1] * 6
    targets = stack([goals[[i]] for i in owners])
    noise = 0.05 * torch.randn(len(owners), flatten(targets).shape[1])
    targets = unflatten(LAYOUT, flatten(targets) + noise)
    tasks = vectors(2).float()[owners] + 0.05 * torch.randn(len(owners), WIDTH)
    module = ICMLoRA(SMALL, LAYOUT)
    losses = trained(module, targets, tasks, 200)
    assert losses[-2] < 0.5 * losses[0] and losses[-1] >= 0
    module.eval()
    own, swapped = (
        flatten(module(Condition(task=vectors(2).float()[order], seed=3)))
        for order in ([0, 1], [1, 0])
    )
    wanted = flatten(goals)
    near, far = (own - wanted).norm(dim=1), (own - wanted.flip(0)).norm(dim=1)
    assert (near < 0.5 * far).all()
    torch.testing.assert_close(swapped, own.flip(0))


def test_a_checkpoint_keeps_statistics_and_every_part(tmp_path: Path) -> None:
    module = made().float()
    save_checkpoint(tmp_path / "c", module, CheckpointInfo())
    found = read_generator(tmp_path / "c")
    assert found.kind == "icm-lora" and found.module.config == SMALL
    condition = Condition(task=vectors(2).float(), seed=1)
    assert torch.equal(flatten(found.module(condition)), flatten(module(condition)))


def test_the_shipped_architecture_takes_less_than_three_megabytes(tmp_path: Path) -> None:
    """Encoder included, for the default base at rank 2, in int8."""
    import yaml

    text = (tiny.ROOT / "configs" / "icm_lora.yaml").read_text(encoding="utf-8")
    told = yaml.safe_load(text)["model"]["init_args"]
    layout = layout_of(load_config(resolve_base()), rank=told["rank"])
    assert sum(tensor_sizes(layout)) == 115_200
    module = ICMLoRA(ICMLoRAConfig(**told["architecture"]), layout)
    assert module.length == 29 * 4096
    save_checkpoint(tmp_path / "c", module, CheckpointInfo(), storage="int8")
    sizes = [(tmp_path / "c" / n).stat().st_size for n in (CHECKPOINT_CONFIG, CHECKPOINT_WEIGHTS)]
    assert 2.5e6 < sum(sizes) < 3e6


def test_what_cannot_be_is_refused() -> None:
    module = made()
    with pytest.raises(UsageError, match="needs task vectors"):
        module(Condition())
    with pytest.raises(UsageError, match="needs task vectors"):
        module.prepare(tiny.adapter(LAYOUT, 2, dtype=torch.float64), None)
    with pytest.raises(UsageError, match="of 6 numbers, and these have 9"):
        module(Condition(task=torch.zeros(1, 9)))
    for wrong in ({"latent": 0}, {"channels": ()}, {"channels": [8, -1]}):
        with pytest.raises(UsageError, match="whole numbers from 1"):
            ICMLoRAConfig(**wrong)
