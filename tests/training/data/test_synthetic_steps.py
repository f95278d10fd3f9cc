"""Synthetic tasks among a step's tasks: where they stand, and what stays as it was."""

import hashlib
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch

from generator.models.text_to_lora import TextToLoRA
from index.encoders.descriptions import DescriptionEncoder
from library.base.models import load_tokenizer, resolve_base
from library.base.prompts import prompt_ids, user_turn
from library.errors import UsageError
from library.tasks.files import Example, Task
from training.data.batches import FRESH, UNDESCRIBED, Rows, StepDataset
from training.data.relabel import Relabelling
from training.data.sampling import SamplingConfig
from training.data.tasks import TaskDataModule
from training.models.multi_task import MultiTaskLoRA
from training.objectives.module import OptimiserConfig
from training.objectives.sft import SFT
from training.synthetic.banks import read_topics
from training.synthetic.families.registry import FAMILIES
from training.synthetic.stream import SyntheticTasks


def task(name: str, rows: int = 70) -> Task:
    made = tuple(
        Example(f"{name}-{i}", f"{name} input {i}", (f"{name} answer {i % 3}", "other"))
        for i in range(rows)
    )
    return Task(
        name, f"Definition of {name}.", made, paraphrases=("One.", "Two."), categories=("c",)
    )


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(resolve_base())


@pytest.fixture(scope="module")
def stream() -> SyntheticTasks:
    return SyntheticTasks(0, FAMILIES, read_topics())


def rows(tokenizer: Any, n: int = 5) -> Rows:
    others = [[Relabelling(f"Other {i}.", {f"t{i} answer 0": "red"})] for i in range(n)]
    return Rows([task(f"t{i}") for i in range(n)], tokenizer, others)


def test_without_synthetic_tasks_steps_are_what_they_were(tokenizer: Any) -> None:
    """The digest is that of the steps drawn before there were synthetic tasks."""
    config = SamplingConfig(
        3, 2, prompted_share=0.5, relabel_share=0.5, examples=2, micro_batches=2
    )
    data = StepDataset(rows(tokenizer), config, 100, seed=1)
    said = [
        (
            batch.descriptions.tolist(),
            batch.tokens,
            [group.ids.tolist() for group in batch.rows],
            [(row.owner, row.prompt, row.references) for row in batch.asked],
            [[(e.input, e.outputs) for e in pairs] for pairs in batch.examples or []],
        )
        for batch in (data[step] for step in range(10))
    ]
    digest = hashlib.sha256(repr(said).encode()).hexdigest()
    assert digest == "ae791490de3a6934aefa5e8bf1e4c2ab19e7c251e8955698e223c1da52717bf3"


def test_a_share_of_the_tasks_comes_from_the_stream(tokenizer: Any, stream: SyntheticTasks) -> None:
    bank, seen = rows(tokenizer), set()
    config = SamplingConfig(4, 3, prompted_share=0.5, synthetic_share=0.5, max_length=2000)
    data = StepDataset(bank, config, 20, seed=0, synthetic=stream)
    for step in range(6):
        batch = data[step]
        assert (
            batch.descriptions[2:].tolist() == [FRESH, FRESH] and min(batch.descriptions) >= FRESH
        )
        assert min(batch.descriptions[:2]) >= 0
        assert list(batch.fresh) == [2, 3] and len(batch.asked) == 12
        for position, text in batch.fresh.items():
            task = stream[2 * step + position - 2]
            assert text == task.description
            asked = [row for row in batch.asked if row.owner == position]
            for j, row in enumerate(asked):
                wanted = task.row(j)
                turns = [user_turn(mode, text, wanted.input) for mode in ("bare", "prompted")]
                prompts = [prompt_ids(tokenizer, turn) for turn in turns]
                assert row.prompt in prompts and row.references == wanted.outputs
                seen.add(prompts.index(row.prompt))
    assert seen == {0, 1}


def test_real_tasks_keep_their_rounds_beside_synthetic_ones(
    tokenizer: Any, stream: SyntheticTasks
) -> None:
    config = SamplingConfig(4, 1, synthetic_share=0.75)
    data = StepDataset(rows(tokenizer), config, 20, seed=0, synthetic=stream)
    firsts = [int(data[step].descriptions[0]) // 4 for step in range(10)]
    assert sorted(firsts[:5]) == sorted(firsts[5:]) == list(range(5))


def test_examples_of_a_synthetic_task_are_no_rows_that_are_asked(
    tokenizer: Any, stream: SyntheticTasks
) -> None:
    config = SamplingConfig(
        4, 3, examples=4, synthetic_share=1.0, no_examples_share=0.2, no_description_share=0.4,
        max_length=2000,
    )  # fmt: skip
    data, counts = StepDataset(rows(tokenizer), config, 20, seed=0, synthetic=stream), set()
    for step in range(10):
        batch = data[step]
        assert batch.examples is not None
        for position, pairs in enumerate(batch.examples):
            task = stream[4 * step + position]
            asked = {task.row(j).input for j in range(3)}
            spare = {(row.input, row.output) for row in map(task.row, range(7))}
            assert {(pair.input, pair.output) for pair in pairs} <= spare
            assert not asked & {pair.input for pair in pairs}
            undescribed = int(batch.descriptions[position]) == UNDESCRIBED
            assert undescribed == (position not in batch.fresh) and (pairs or not undescribed)
            counts.add(len(pairs))
    assert counts >= {0, 1, 2, 3}


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_no_other_shares(share: float) -> None:
    with pytest.raises(UsageError, match=r"synthetic_share must be from 0 to 1"):
        SamplingConfig(synthetic_share=share)


def test_a_share_needs_a_stream(tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="there are none"):
        StepDataset(rows(tokenizer), SamplingConfig(4, 1, synthetic_share=0.5), 1, seed=0)


def write_tasks(folder: Path) -> Path:
    folder.mkdir()
    for name in ("red", "blue"):
        lines = "\n".join(f'{{"input": "{name} {i}", "output": "{name}"}}' for i in range(64))
        (folder / f"{name}.jsonl").write_text(lines)
        (folder / f"{name}.txt").write_text(f"Always answer with {name}.")
    return folder


def data_module(base: Path, tasks: Path, **changes: Any) -> TaskDataModule:
    sampling = SamplingConfig(4, 2, synthetic_share=0.5, max_length=2000, **changes)
    return TaskDataModule([str(tasks)], base=str(base), sampling=sampling, steps=3)


def test_descriptions_are_embedded_as_they_come_and_not_kept(
    encoder: DescriptionEncoder, tiny_base: Path, tmp_path: Path
) -> None:
    data = data_module(tiny_base, write_tasks(tmp_path / "tasks"), examples=2)
    data.setup("fit")
    for number in range(3):
        step = data.training_steps()[number]
        batch = data.transfer_batch_to_device(step, torch.device("cpu"), 0)
        assert batch.embeddings is not None and len(batch.embeddings) == 4
        for position, text in step.fresh.items():
            wanted = encoder.encode_batch([text])[0].pooled[0].float()
            got = batch.embeddings.pooled[position]
            torch.testing.assert_close(got, wanted, atol=1e-3, rtol=0)
        for position in {0, 1, 2, 3} - step.fresh.keys():
            assert batch.embeddings.mask[position].any() == (step.descriptions[position] >= 0)
    assert data._pair_bank is not None and not data._pair_bank._inputs


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("objective", ["sft", "multi-task"])
def test_it_trains_on_both(objective: str, tiny_base: Path, tmp_path: Path) -> None:
    data = data_module(tiny_base, write_tasks(tmp_path / "tasks"))
    lightning.seed_everything(0)
    if objective == "multi-task":
        data.encoder_name = None
        module: Any = MultiTaskLoRA(base=str(tiny_base))
    else:
        module = SFT(
            generator=TextToLoRA,
            base=str(tiny_base),
            rank=4,
            architecture={"latent": 16, "head_in": 32},
            optimiser=OptimiserConfig(lr=1e-2),
            storage="float32",
        )
    before = {name: value.clone() for name, value in module.named_parameters()}
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=1, enable_checkpointing=False, logger=False,
        enable_model_summary=False, enable_progress_bar=False,
    )  # fmt: skip
    trainer.fit(module, data)
    assert trainer.global_step == 3
    assert torch.isfinite(trainer.callback_metrics["train_loss"])
    assert any(not torch.equal(value, before[name]) for name, value in module.named_parameters())
    assert data.record["sampling"]["synthetic_share"] == 0.5
