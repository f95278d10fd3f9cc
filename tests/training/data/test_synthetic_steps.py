"""Synthetic tasks among a step's tasks: where they stand, and what stays as it was."""

import hashlib
from itertools import pairwise
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
from training.data.batches import FRESH, UNDESCRIBED, Rows
from training.data.draws import StepDataset
from training.data.relabel import Relabelling
from training.data.sampling import SamplingConfig
from training.data.tasks import TaskDataModule, first_tasks
from training.models.multi_task import MultiTaskLoRA
from training.objectives.module import OptimiserConfig
from training.objectives.sft import SFT
from training.synthetic.authored import authored_digest, read_authored
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
@pytest.mark.parametrize("name", ["synthetic_share", "classification_share"])
def test_no_other_shares(name: str, share: float) -> None:
    with pytest.raises(UsageError, match=f"{name} must be from 0 to 1"):
        SamplingConfig(**{name: share})


@pytest.mark.parametrize("name", ["synthetic_group", "distinct_tasks"])
def test_no_numbers_below_one(name: str) -> None:
    with pytest.raises(UsageError, match=f"sampling.{name} must be 1 or more, not 0"):
        SamplingConfig(**{name: 0})


def test_a_share_needs_a_stream(tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="there are none"):
        StepDataset(rows(tokenizer), SamplingConfig(4, 1, synthetic_share=0.5), 1, seed=0)


def write_tasks(folder: Path, names: tuple[str, ...] = ("red", "blue")) -> Path:
    folder.mkdir()
    for name in names:
        lines = "\n".join(f'{{"input": "{name} {i}", "output": "{name}"}}' for i in range(64))
        (folder / f"{name}.jsonl").write_text(lines)
        (folder / f"{name}.txt").write_text(f"Always answer with {name}.")
    return folder


def data_module(base: Path, tasks: Path, **changes: Any) -> TaskDataModule:
    sampling = SamplingConfig(4, 2, synthetic_share=0.5, max_length=2000, **changes)
    return TaskDataModule([str(tasks)], str(base), sampling=sampling, steps=3)


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


@pytest.mark.parametrize("cap", [2, 4, 5, 8, None])
def test_no_more_different_tasks_than_asked_for(
    tokenizer: Any, tiny_base: Path, tmp_path: Path, cap: int | None
) -> None:
    folder = write_tasks(tmp_path / "tasks", ("red", "blue", "green", "black"))
    data = data_module(tiny_base, folder, distinct_tasks=cap, synthetic_group=1)
    data.encoder_name, data.steps = None, 40
    data.setup("fit")
    seen: set[Any] = set()
    for step in range(40):
        batch = data.training_steps()[step]
        assert len(batch.descriptions) == 4
        seen |= {int(d) for d in batch.descriptions if d >= 0} | {*batch.fresh.values()}
    real = {number for number in seen if isinstance(number, int)}
    assert len(real) == min(cap or 4, 4) == len(data.task_names)
    texts = len(seen) - len(real)  # both of each synthetic task, where it comes again
    assert texts == (80 if cap is None else 2 * max(0, cap - 4))


@pytest.mark.parametrize("cap", [None, 12, 2])
def test_authored_tasks_come_after_real_ones_and_are_never_relabelled(
    tiny_base: Path, tmp_path: Path, cap: int | None
) -> None:
    authored = len(read_authored()) if cap is None else cap - 2
    sampling = SamplingConfig(4, 2, relabel_share=1.0, max_length=2000, distinct_tasks=cap)
    folder = write_tasks(tmp_path / "tasks")
    data = TaskDataModule(
        [str(folder)], str(tiny_base), None, sampling, 3, set_aside_share=0.0, authored=True
    )
    data.setup("fit")
    names = data.task_names
    assert names[:2] == ["blue", "red"] and len(names) == 2 + authored
    assert data.record["authored_sha256"] == authored_digest()
    assert all(name.startswith("authored/") for name in names[2:])
    assert all(len(wordings) == 3 for wordings in data._train_rows.wordings[2:])
    drawn = [task for step in range(3) for task in data.training_steps().draw(step).tasks]
    texts = {text for task in data.training[2:] for text in task.descriptions}
    assert any(task.wording.text in texts for task in drawn) == bool(authored)


def test_smaller_numbers_of_tasks_are_part_of_larger_ones() -> None:
    tasks = [task(f"t{i}", 1) for i in range(30)]
    chosen = [{t.name for t in first_tasks(tasks, n, 5)} for n in (3, 10, 29, 30, 99)]
    assert [len(names) for names in chosen] == [3, 10, 29, 30, 30]
    assert all(a <= b for a, b in pairwise(chosen))
    assert first_tasks(tasks, None, 5) == tasks == first_tasks(tasks, 30, 5)
    assert {t.name for t in first_tasks(tasks, 3, 6)} != chosen[0]


def test_settings_of_the_stream_come_from_the_sampling(tiny_base: Path, tmp_path: Path) -> None:
    folder = write_tasks(tmp_path / "tasks")
    for share, families in ((0.0, True), (1.0, False)):
        data = data_module(tiny_base, folder, classification_share=share, synthetic_group=3)
        data.encoder_name = None
        data.setup("fit")
        stream = data.training_steps().synthetic
        assert stream is not None and (stream.group, stream.count) == (3, None)
        assert {stream[i].name.split("/")[3].split("(")[0] in FAMILIES for i in range(12)} == {
            families
        }


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("objective", ["sft", "multi-task"])
def test_it_trains_on_both(objective: str, tiny_base: Path, tmp_path: Path) -> None:
    data = data_module(tiny_base, write_tasks(tmp_path / "tasks"), variant_share=0.5)
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
