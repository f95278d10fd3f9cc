"""Training: exact losses, and runs that resume."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import pytest
import tiny
import torch

from generator.engine import read_generator
from generator.models.base import Condition
from generator.models.text_to_lora import TextToLoRA
from index.encoders.descriptions import DEFAULT_ENCODER
from library.base.loss import answer_logits, answer_loss
from library.base.multi_adapter import adapted
from library.checkpoint import CheckpointInfo, save_checkpoint
from library.errors import TaskFileError, UsageError
from library.layout import DEFAULT_TARGETS, layout_of
from training.data.batches import TaskBatch
from training.data.sampling import SamplingConfig
from training.data.tasks import TaskDataModule
from training.objectives.frozen_base import QUIET
from training.objectives.module import OptimiserConfig
from training.objectives.reconstruction import Reconstruction
from training.objectives.sft import SFT

STEPS = 6


@pytest.mark.parametrize("family", DEFAULT_TARGETS)
def test_logits_at_the_answers_are_the_models_own(family: str) -> None:
    config = tiny.config(family)
    model = tiny.model(config)
    ids, answer = tiny.tokens(3, 9), torch.zeros(3, 9, dtype=torch.bool)
    answer[0, 2:5] = answer[1, 7:8] = answer[2, 0:8] = True
    adapter = tiny.adapter(layout_of(config, rank=2), 2)
    with torch.no_grad(), adapted(model, adapter, torch.tensor([1, 0, 1])):
        expected = model(input_ids=ids).logits[answer]
        torch.testing.assert_close(answer_logits(model, ids, answer), expected)
        torch.manual_seed(0)
        noisy = answer_logits(model, ids, answer, neftune_alpha=5.0)
    assert noisy.shape == expected.shape
    assert not torch.allclose(noisy, expected, atol=1e-3)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_a_row_is_the_mean_over_its_answer(smoothing: float) -> None:
    ids, answer = tiny.tokens(4, 9), torch.zeros(4, 9, dtype=torch.bool)
    answer[0, 2:5] = answer[1, 7:8] = answer[2, 0:8] = answer[3, 4:6] = True
    logits = torch.randn(int(answer.sum()), 61, generator=torch.Generator().manual_seed(0))
    got = answer_loss(logits, ids, answer, label_smoothing=smoothing)
    position = 0
    for row in range(4):
        losses = []
        for t in range(9):
            if answer[row, t]:
                log = logits[position].log_softmax(-1)
                one = (1 - smoothing) * log[ids[row, t + 1]] + smoothing * log.mean()
                losses.append(-one)
                position += 1
        torch.testing.assert_close(got[row], torch.stack(losses).mean())


def write_tasks(folder: Path, names: Sequence[str], rows: int = 64) -> None:
    """Tasks whose answer is one word, so that a few steps teach something."""
    folder.mkdir()
    for name in names:
        lines = "\n".join(f'{{"input": "{name} {i}", "output": "{name}"}}' for i in range(rows))
        (folder / f"{name}.jsonl").write_text(lines)
        (folder / f"{name}.txt").write_text(f"Always answer with {name}.")


class Losses(lightning.Callback):
    """Keeps the loss of every step, and the run's state half-way."""

    def __init__(self, half: Path | None) -> None:
        self.values: list[float] = []
        self.half = half

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.values.append(float(trainer.callback_metrics["train_loss"]))
        if self.half is not None and trainer.global_step == STEPS // 2:
            trainer.save_checkpoint(self.half)


class Run:
    """A generator, its data and a trainer for `tiny_base`; nothing in it is random but the seed."""

    def __init__(
        self,
        base: Path,
        tasks: Path,
        out: Path | None = None,
        max_length: int = 320,
        architecture: dict[str, int] | None = None,
        examples: int = 0,
    ) -> None:
        lightning.seed_everything(0)
        self.module = SFT(
            generator=TextToLoRA,
            base=str(base),
            targets=["q_proj", "v_proj", "down_proj"],
            rank=4,
            architecture={"latent": 16, "head_in": 32, "dropout": 0.0, **(architecture or {})},
            optimiser=OptimiserConfig(lr=1e-2),
            neftune_alpha=0.0,
            out=None if out is None else str(out),
            storage="float32",
        )
        sampling = SamplingConfig(2, 2, examples=examples, max_length=max_length, micro_batches=2)
        self.data = TaskDataModule(
            [str(tasks)], base=str(base), sampling=sampling, steps=STEPS, set_aside_share=0.34
        )
        self.losses = Losses(None if out is None else out.with_name("half.ckpt"))
        self.trainer = lightning.Trainer(
            accelerator="cpu",
            max_epochs=1,
            callbacks=[self.losses],
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            logger=False,
        )

    def fit(self, checkpoint: Path | None = None) -> dict[str, torch.Tensor]:
        self.trainer.fit(self.module, self.data, ckpt_path=checkpoint, weights_only=True)
        return self.module.generator.state_dict()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_steps_reduce_the_loss_and_a_resumed_run_ends_where_an_unbroken_one_does(
    tiny_base: Path, tmp_path: Path
) -> None:
    write_tasks(tmp_path / "tasks", ["red", "blue", "green"])
    whole = Run(tiny_base, tmp_path / "tasks", tmp_path / "out")
    final = whole.fit()
    assert len(whole.losses.values) == STEPS
    assert whole.losses.values[-1] < whole.losses.values[0] - 0.5
    assert whole.trainer.callback_metrics["val_loss"] > 0

    # What was exported is what was trained, for the tasks that were trained on.
    exported = read_generator(tmp_path / "out")
    assert all(torch.equal(v, final[k]) for k, v in exported.module.state_dict().items())
    assert exported.info.tasks == sorted(t.name for t in whole.data.training)
    assert len(exported.info.tasks) == 2
    assert exported.info.base["id"] == str(tiny_base)
    assert exported.info.training["steps"] == STEPS

    again = Run(tiny_base, tmp_path / "tasks")
    resumed = again.fit(tmp_path / "half.ckpt")
    assert again.losses.values == pytest.approx(whole.losses.values[STEPS // 2 :], abs=1e-5)
    for key, value in final.items():
        torch.testing.assert_close(resumed[key], value, atol=1e-6, rtol=1e-5)


READING = {"queries": 2, "words_dim": 384, "examples": 3}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_generator_is_trained_on_descriptions_and_examples(
    tiny_base: Path, tmp_path: Path
) -> None:
    write_tasks(tmp_path / "tasks", ["red", "blue", "green"])
    run = Run(tiny_base, tmp_path / "tasks", tmp_path / "out", architecture=READING, examples=3)
    before = {key: value.clone() for key, value in run.module.generator.state_dict().items()}
    after = run.fit()
    assert run.losses.values[-1] < run.losses.values[0] - 0.5
    pair_keys = [key for key in after if key.startswith("pairs.")]
    assert pair_keys and all(not torch.equal(after[key], before[key]) for key in pair_keys)
    read = read_generator(tmp_path / "out")
    assert read.module.max_examples == 3 and not read.module.needs
    assert read.info.training["data"]["sampling"]["examples"] == 3


def test_a_training_goes_on_from_a_checkpoint(tiny_base: Path, tmp_path: Path) -> None:
    def begun(start: Path | None, encoder: str = DEFAULT_ENCODER, **architecture: int) -> SFT:
        return SFT(
            generator=TextToLoRA,
            base=str(tiny_base),
            rank=4,
            architecture={
                "latent": 16,
                "head_in": 24,
                "queries": 2,
                "words_dim": 8,
                **architecture,
            },
            encoder=encoder,
            start=None if start is None else str(start),
        )

    first = begun(None).generator
    tiny.randomise(first, std=0.2)
    info = CheckpointInfo(
        {"id": "tiny", "sha256": None, "source": "random"}, DEFAULT_ENCODER, ["seen"]
    )
    folder = tmp_path / "start"
    save_checkpoint(folder, first, info)
    stored = read_generator(folder)
    known = stored.module.state_dict()
    for examples, lacking in ((0, set[str]()), (3, {"pairs"})):
        module = begun(folder, examples=examples)
        state = module.generator.state_dict()
        assert all(torch.equal(state[key], value) for key, value in known.items())
        assert {key.partition(".")[0] for key in state.keys() - known.keys()} == lacking
        assert module.settings()["start_digest"] == stored.digest and [*module.seen] == ["seen"]
    for said, encoder, wrong in (
        ("another architecture: size mismatch", DEFAULT_ENCODER, {"latent": 32}),
        ("another architecture: task_encoder", DEFAULT_ENCODER, {"queries": 0, "words_dim": 0}),
        (f"reads {DEFAULT_ENCODER}, and this training other", "other", {}),
    ):
        with pytest.raises(UsageError, match=said) as raised:
            begun(folder, encoder, **wrong)
        assert "\n" not in str(raised.value)


def test_data_and_generator_have_the_same_number_of_examples(
    tiny_base: Path, tmp_path: Path
) -> None:
    for architecture, examples in ((READING, 0), ({}, 3), (READING, 8)):
        run = Run(tiny_base, tmp_path, architecture=architecture, examples=examples)
        run.module.trainer = run.trainer
        run.trainer.datamodule = run.data
        with pytest.raises(UsageError, match=f"sampling.examples is {examples}, and text-to-lora"):
            run.module.setup("fit")
    with pytest.raises(UsageError, match="Reconstruction gives no examples"):
        Reconstruction(generator=TextToLoRA, base=str(tiny_base), architecture=READING)


class DirectGradients(lightning.Callback):
    """Compares the gradients of each step with those of the loss run backward in one piece."""

    compared = 0

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: TaskBatch, batch_idx: int
    ) -> None:
        adapter = pl_module.generator(Condition(text=batch.embeddings))
        loss = pl_module.frozen.losses(batch.rows, adapter).mean()
        size = sum(factor.square().mean() for factor in adapter.factors())
        loss = loss + pl_module.weight_penalty * size
        self.direct = torch.autograd.grad(loss, list(pl_module.generator.parameters()))

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        for parameter, wanted in zip(pl_module.generator.parameters(), self.direct, strict=True):
            torch.testing.assert_close(parameter.grad, wanted, atol=1e-6, rtol=1e-4)
            self.compared += bool(wanted.any())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_groups_run_backward_one_by_one_give_the_gradient_of_the_whole(
    tiny_base: Path, tmp_path: Path
) -> None:
    write_tasks(tmp_path / "tasks", ["red", "blue", "green"])
    run = Run(tiny_base, tmp_path / "tasks")
    run.module.noise, run.module.weight_penalty = QUIET, 0.1
    check = DirectGradients()
    run.trainer.callbacks.append(check)
    run.fit()
    assert check.compared > STEPS


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_tasks_that_cannot_be_trained_on(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="set_aside_share"):
        TaskDataModule([str(tmp_path)], base=str(tiny_base), set_aside_share=1.0)
    write_tasks(tmp_path / "tasks", ["short"], rows=60)  # all of it tune and test rows
    data = TaskDataModule([str(tmp_path / "tasks")], base=str(tiny_base))
    with pytest.raises(TaskFileError, match="no tasks"):
        data.setup("fit")
    write_tasks(tmp_path / "long", ["red", "blue", "green"])
    with pytest.raises(TaskFileError, match="max_length"):
        Run(tiny_base, tmp_path / "long", max_length=8).fit()


COMPILE = """
import tiny, torch
from library.base.multi_adapter import MultiAdapter
from library.layout import layout_of
from index.encoders.descriptions import DEFAULT_ENCODER
from library.base.loss import answer_logits, answer_loss
from training.data.relabel import Relabelling
from library.base.compiled import compile_layers

config = tiny.config("llama")
found = []
for compiled in (False, True):
    model, adapter = tiny.model(config), tiny.adapter(layout_of(config, rank=2), 3)
    factors = [*adapter.A.values(), *adapter.B.values()]
    for factor in factors:
        factor.requires_grad_()
    hooks = MultiAdapter(model, adapter.layout)
    if compiled:
        compile_layers(model, backend="aot_eager")
    for batch, length in ((5, 9), (4, 13), (7, 11), (6, 10), (9, 12), (3, 15)):
        ids, answer = tiny.tokens(batch, length), torch.zeros(batch, length, dtype=torch.bool)
        answer[:, 3:6] = True
        hooks.set(adapter, torch.arange(batch) % 3)
        answer_loss(answer_logits(model, ids, answer), ids, answer).sum().backward()
    found.append([factor.grad for factor in factors])
for eager, compiled in zip(*found, strict=True):
    torch.testing.assert_close(compiled, eager)
print(torch._dynamo.utils.counters["stats"]["unique_graphs"])
"""


def test_compiled_layers_answer_alike_with_one_graph_for_all_shapes() -> None:
    """In a process of its own: the shape checks of the test run would break the graph."""
    graphs = int(tiny.output_of(tiny.start_python(COMPILE, hash_seed=0)).splitlines()[-1])
    assert graphs == 1
