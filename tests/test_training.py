"""Training: batches as a function of (seed, step), exact losses, and runs that resume."""

import re
from collections.abc import Sequence
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import lightning
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from generator.checkpoint import from_pretrained
from generator.config import TextToLoRAConfig
from library.base import load_tokenizer, resolve_base
from library.errors import TaskFileError, UsageError
from library.forward import adapted
from library.layout import DEFAULT_TARGETS, layout_of
from library.lm_loss import answer_logits, answer_loss
from library.prompts import prompt_ids
from library.tasks import Instance, Task
from library.token_batch import cuts
from training.batches import (
    Rows,
    SamplingConfig,
    StepDataset,
    TaskBatch,
    ValidationDataset,
)
from training.data import TaskDataModule, set_aside
from training.frozen_base import QUIET
from training.generator_module import OptimiserConfig
from training.relabel import Relabelling
from training.sft import TextToLoRASFT, _size

STEPS = 6


def task(name: str, rows: int = 70, category: str = "c") -> Task:
    made = tuple(
        Instance(f"{name}-{i}", f"{name} input {i}", (f"{name} answer {i % 3}", "other"))
        for i in range(rows)
    )
    return Task(
        name, f"Definition of {name}.", made, paraphrases=("One.", "Two."), categories=(category,)
    )


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(resolve_base())


def same(a: TaskBatch, b: TaskBatch) -> bool:
    return (
        torch.equal(a.descriptions, b.descriptions)
        and len(a.rows) == len(b.rows)
        and all(
            x.ids.shape == y.ids.shape and torch.equal(x.ids, y.ids)
            and torch.equal(x.answer, y.answer) and torch.equal(x.rows, y.rows)
            for x, y in zip(a.rows, b.rows, strict=True)
        )
    )  # fmt: skip


def test_a_step_is_a_function_of_seed_and_step(tokenizer: Any) -> None:
    rows = Rows([task(f"t{i}") for i in range(5)], tokenizer)
    config = SamplingConfig(tasks_per_step=3, rows_per_task=2, micro_batches=2)
    first, again = (StepDataset(rows, config, 100, seed=1) for _ in range(2))
    later = [again[i] for i in (7, 3, 0)][::-1]  # in another order
    assert all(same(first[i], batch) for i, batch in zip((0, 3, 7), later, strict=True))
    assert not same(first[0], first[1])
    assert not same(first[0], StepDataset(rows, config, 100, seed=2)[0])


def test_relabelled_steps_change_description_prompt_and_answer_alike(tokenizer: Any) -> None:
    """The words that a description promises are those that its answers hold."""
    task = Task(
        "t",
        "Answer 'yes' or 'no'.",
        tuple(Instance(f"t-{i}", f"question {i}", (("yes", "no")[i % 2],)) for i in range(70)),
        summary="Judge it.",
    )
    other = Relabelling("Answer 'red' or 'blue'.", {"yes": "red", "no": "blue"})
    rows = Rows([task], tokenizer, [[other]])
    assert rows.texts == [task.definition, task.summary, other.definition]
    for share, wanted in ((0.0, {0, 1}), (1.0, {2}), (0.5, {0, 1, 2})):
        config = SamplingConfig(1, 8, prompted_share=0.5, relabel_share=share, micro_batches=1)
        seen = set()
        for batch in (StepDataset(rows, config, 40, seed=0)[step] for step in range(40)):
            place = int(batch.descriptions[0])
            seen.add(place)
            for ids, answer in zip(batch.rows[0].ids, batch.rows[0].answer, strict=True):
                asked = tokenizer.decode(ids[: int(answer.nonzero()[0]) + 1])
                row = task.instances[int(re.findall(r"question (\d+)", asked)[0])]
                said = tokenizer.decode(ids.roll(-1)[answer]).removesuffix("<|im_end|>")
                assert said == (other.labels if place == 2 else {}).get(*row.outputs * 2)
                assert (task.definition in asked) <= (place != 2)
                assert (other.definition in asked) <= (place == 2)
        assert seen == wanted


def test_every_task_is_seen_once_per_round(tokenizer: Any) -> None:
    rows = Rows([task(f"t{i}") for i in range(5)], tokenizer)
    data = StepDataset(rows, SamplingConfig(tasks_per_step=2, rows_per_task=1), 10, seed=0)
    owner = {
        d: i
        for i, (first, n) in enumerate(zip(rows.first, map(len, rows.wordings), strict=True))
        for d in range(first, first + n)
    }
    visits = [owner[d] for step in range(10) for d in data[step].descriptions.tolist()]
    rounds = [visits[i : i + 5] for i in range(0, 20, 5)]
    assert all(sorted(visit) == list(range(5)) for visit in rounds)
    assert len({tuple(visit) for visit in rounds}) > 1


def test_a_batch_holds_prompt_answer_and_where_the_answer_is(tokenizer: Any) -> None:
    tasks = [task("alpha"), task("beta")]
    config = SamplingConfig(
        tasks_per_step=2, rows_per_task=3, prompted_share=0.5, definition_share=0.5
    )
    data = StepDataset(Rows(tasks, tokenizer, first=10), config, 20, seed=0)
    modes, names, count = set(), set(), 0
    for step in range(20):
        batch = data[step]
        assert sorted(torch.cat([g.rows for g in batch.rows]).tolist()) == [0, 0, 0, 1, 1, 1]
        tokens = 0
        for group in batch.rows:
            for ids, answer, position in zip(group.ids, group.answer, group.rows, strict=True):
                description = int(batch.descriptions[position])
                owner = tasks[(description - 10) // 3]
                names.add(description)
                wanted = ids.roll(-1)[answer]
                text = tokenizer.decode(wanted)
                instances = [i for i in owner.train if text == f"{i.outputs[0]}<|im_end|>"]
                assert instances
                start = int(answer.nonzero()[0]) + 1
                prompts = {
                    mode: [prompt_ids(tokenizer, prefix + i.input) for i in instances]
                    for mode, prefix in (("bare", ""), ("prompted", f"{owner.definition}\n\n"))
                }
                found = [m for m, ps in prompts.items() if ids[:start].tolist() in ps]
                assert len(found) == 1
                modes.update(found)
                tokens += start + len(wanted)
                count += 1
        assert batch.tokens == tokens
    assert count == 120
    assert modes == {"bare", "prompted"}
    assert names == set(range(10, 16))  # definitions and every paraphrase


@pytest.mark.parametrize("parts", [1, 2, 5, 40])
def test_micro_batches_hold_rows_of_similar_length(tokenizer: Any, parts: int) -> None:
    rows = Rows([task(f"t{'x ' * 9 * i}") for i in range(6)], tokenizer)
    config = SamplingConfig(tasks_per_step=6, rows_per_task=4, micro_batches=parts)
    groups = StepDataset(rows, config, 1, seed=0)[0].rows
    assert sum(len(group.ids) for group in groups) == 24
    assert 1 <= len(groups) <= parts
    widths = [group.ids.shape[1] for group in groups]
    assert widths == sorted(widths)
    assert parts == 1 or len(set(widths)) > 1


@given(st.lists(st.integers(1, 90), min_size=1, max_size=9), st.integers(1, 4))
def test_cuts_take_the_least_padding(lengths: list[int], parts: int) -> None:
    lengths.sort()

    def cells(edges: Sequence[int]) -> int:
        return sum((b - a) * -(-lengths[b - 1] // 8) * 8 for a, b in pairwise([0, *edges]))

    n = len(lengths)
    every = [[*inner, n] for k in range(min(parts, n)) for inner in combinations(range(1, n), k)]
    found = cuts(lengths, parts)
    assert [a for a, _ in found] == [0, *(b for _, b in found[:-1])] and len(found) <= parts
    assert cells([b for _, b in found]) == min(map(cells, every))


def test_long_rows_are_left_out_and_validation_takes_tune_rows(tokenizer: Any) -> None:
    long = task("long")
    stretched = tuple(
        Instance(i.id, i.input + (" word" * 400 if n % 2 else ""), i.outputs)
        for n, i in enumerate(long.instances)
    )
    tasks = [task(f"t{i}") for i in range(8)] + [Task("long", "D.", stretched)]
    data = ValidationDataset(Rows(tasks, tokenizer), SamplingConfig(max_length=200))
    assert len(data) == 2
    full, last = data[0], data[1]
    assert sum(len(g.ids) for g in full.rows) == 8 * 20
    assert full.descriptions.tolist() == [3 * i for i in range(8)]
    kept = torch.cat([g.rows for g in last.rows])
    assert len(kept) == 10  # every other row is too long
    assert max(g.ids.shape[1] for g in [*full.rows, *last.rows]) <= 200


@given(
    st.lists(st.sampled_from("abcde"), min_size=1, max_size=40),
    st.floats(0, 0.9),
    st.integers(0, 3),
)
def test_tasks_set_aside(categories: list[str], share: float, seed: int) -> None:
    tasks = [task(f"t{i}", 1, c) for i, c in enumerate(categories)]
    train, aside = set_aside(tasks, share, seed)
    assert sorted([*train, *aside], key=lambda t: int(t.name[1:])) == tasks
    assert len(aside) == round(len(tasks) * share)
    names = {t.name for t in aside}
    assert {t.name for t in set_aside(tasks[::-1], share, seed)[1]} == names  # order is no matter


def test_a_share_of_tasks_set_aside_are_whole_categories() -> None:
    tasks = [task(f"t{i}", 1, f"c{i % 10}") for i in range(100)]
    train, aside = set_aside(tasks, 0.4, seed=0)
    left = {t.categories for t in train}
    whole = [t for t in aside if t.categories not in left]
    assert len(aside) == 40
    assert len(whole) >= 20


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
        self, base: Path, tasks: Path, out: Path | None = None, max_length: int = 320
    ) -> None:
        lightning.seed_everything(0)
        self.module = TextToLoRASFT(
            base=str(base),
            targets=["q_proj", "v_proj", "down_proj"],
            rank=4,
            architecture=TextToLoRAConfig(latent=16, head_in=32, dropout=0.0),
            optimiser=OptimiserConfig(lr=1e-2),
            neftune_alpha=0.0,
            out=None if out is None else str(out),
            storage="float32",
        )
        sampling = SamplingConfig(2, 2, max_length=max_length, micro_batches=2)
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
    exported = from_pretrained(tmp_path / "out")
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


class DirectGradients(lightning.Callback):
    """Compares the gradients of each step with those of the loss run backward in one piece."""

    compared = 0

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: TaskBatch, batch_idx: int
    ) -> None:
        adapter = pl_module.generator(batch.embeddings)
        loss = pl_module._base.losses(batch.rows, adapter).mean()
        loss = loss + pl_module.weight_penalty * _size(adapter)
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
from library.forward import MultiAdapter
from library.layout import layout_of
from library.lm_loss import answer_logits, answer_loss
from training.relabel import Relabelling
from library.compiled import compile_layers

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
