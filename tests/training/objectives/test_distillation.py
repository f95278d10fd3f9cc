"""Distillation: its gradient by hand, whose answers are taught, and an equal that stays."""

from pathlib import Path
from typing import Any

import lightning
import pytest
import tiny
import torch
from distilling import Run, tasks  # noqa: F401  (a fixture)
from teachers import teacher, write_teacher  # noqa: F401  (a fixture)
from words import WORDS, word_base, write_tasks  # noqa: F401  (a fixture)

from library.base.models import load_base, load_config, resolve_base
from library.layout import layout_of
from library.peft.read import read_peft
from training.data.batches import TaskBatch, TaughtRow
from training.data.sampling import SamplingConfig
from training.objectives import lessons
from training.objectives.distillation import Distillation

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


class ByHand(lightning.Callback):
    """Compares each step with the loss written out, one row at a time, unpadded."""

    compared = 0
    label_weight = 0.0

    def __init__(self) -> None:
        self.rows: list[TaughtRow] = []

    def on_train_batch_start(
        self, trainer: Any, pl_module: Distillation, batch: TaskBatch, batch_idx: int
    ) -> None:
        tiny.randomise(pl_module.generator, seed=batch_idx, std=0.2)
        frozen, adapter = pl_module.frozen, pl_module.generator(pl_module.condition(batch))
        answers, terms = pl_module.answers(batch.taught), []
        self.rows += batch.taught
        own = load_base(pl_module.reference).model
        reader = tiny.merged(own, pl_module.teacher)  # the teacher as a model of its own
        for row, said in zip(batch.taught, answers, strict=True):
            read = torch.tensor([row.read + said])
            with torch.no_grad():
                log_p = (own if row.nothing else reader)(input_ids=read).logits[0].log_softmax(-1)
            frozen._hooks.set(adapter, torch.tensor([row.owner]))
            log_q = frozen.base.model(input_ids=torch.tensor([row.prompt + said])).logits[0]
            log_q = log_q.log_softmax(-1)[len(row.prompt) - 1 : -1]  # (answer, vocabulary)
            log_p = log_p[len(row.read) - 1 : -1]
            divergence = (log_p.exp() * (log_p - log_q)).sum(-1).mean()
            loss = -log_q[torch.arange(len(said)), said].mean()
            terms.append(divergence + self.label_weight * loss * (not row.nothing))
        frozen._hooks.clear()
        self.loss = torch.stack(terms).mean()
        self.direct = torch.autograd.grad(self.loss, list(pl_module.generator.parameters()))

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        largest = max(float(wanted.abs().max()) for wanted in self.direct)
        for parameter, wanted in zip(pl_module.generator.parameters(), self.direct, strict=True):
            torch.testing.assert_close(parameter.grad, wanted, atol=2e-5 * largest, rtol=1e-3)
            self.compared += bool(wanted.any())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "nothing", "members"),
    [
        ({}, 0.0, 3),
        ({"label_weight": 0.5}, 0.5, 32),
        ({"labels": "teacher", "max_new_tokens": 4, "label_weight": 0.3}, 0.5, 1),
        ({"labels": "teacher", "max_new_tokens": 4, "temperature": 1.5, "answer_batch": 2}, 0.0, 4),
    ],
)
def test_the_gradient_is_that_of_the_loss_by_hand(
    word_base: Path,
    teacher: Path,
    tasks: Path,
    settings: dict[str, Any],
    nothing: float,
    members: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lessons, "MEMBERS", members)
    check = ByHand()
    check.label_weight = settings.get("label_weight", 0.0)
    sampling = SamplingConfig(4, 3, prompted_share=0.3, micro_batches=2)
    run = Run(
        word_base, teacher, tasks, 2, callbacks=[check], nothing=nothing, sampling=sampling,
        label_smoothing=0.0, **settings,
    ).fit()  # fmt: skip
    assert check.compared > 20
    assert run.figures("loss")[-1] == pytest.approx(float(check.loss), rel=1e-4)
    assert {row.nothing for row in check.rows} == ({False, True} if nothing else {False})
    assert any(len(row.read) != len(row.prompt) for row in check.rows)
    assert ("train_nothing_divergence" in run.logged[0]) == bool(nothing)


@pytest.mark.slow
def test_the_teachers_answers_are_its_own_and_a_seed_decides_the_draws(
    word_base: Path,
    teacher: Path,
    tasks: Path,
) -> None:
    def answered(**settings: Any) -> tuple[list[TaughtRow], list[list[int]]]:
        run = Run(
            word_base, teacher, tasks, 1, nothing=0.5, labels="teacher", max_new_tokens=3,
            sampling=SamplingConfig(4, 2), **settings,
        ).fit()  # fmt: skip
        rows = run.data.training_steps()[0].taught
        return rows, run.module.answers(rows)

    rows, greedy = answered()
    own = load_base(resolve_base(str(word_base))).model
    reader = tiny.merged(
        own, read_peft(teacher, layout_of(own.config, ["q_proj", "v_proj", "down_proj"]))
    )
    for row, said in zip(rows, greedy, strict=True):
        model = own if row.nothing else reader
        logits = model(input_ids=torch.tensor([row.read + said])).logits[0]
        assert logits.argmax(-1)[len(row.read) - 1 : -1].tolist() == said
        assert len(said) == 3 or said[-1] == WORDS.index("<end>")
    assert answered(temperature=2.0)[1] == answered(temperature=2.0)[1]
    assert len({str(answered(temperature=2.0, seed=s)[1]) for s in range(2)}) == 2


@pytest.mark.slow
def test_a_student_that_is_its_teacher_has_nothing_to_learn(
    word_base: Path,
    tmp_path: Path,
) -> None:
    """Its static part is the teacher, its gate is closed, and it has the instruction to read."""
    tasks = write_tasks(tmp_path / "tasks", {"a": "red", "b": "blue sky"})
    layout = layout_of(load_config(resolve_base(str(word_base))), ["q_proj", "v_proj"], rank=2)
    adapter = tiny.adapter(layout)
    reader = write_teacher(tmp_path / "teacher", str(word_base), adapter)
    run = Run(
        word_base, reader, tasks, 3, lr=1e-3, architecture={"gate": True}, rank=4,
        targets=["q_proj", "v_proj"], sampling=SamplingConfig(2, 3, prompted_share=1.0),
    )  # fmt: skip
    gated = run.module.generator.gated_sum
    with torch.no_grad():
        gated.gate.bias.fill_(-1e9)
        for key in adapter.A:
            gated.A[key].copy_(adapter.A[key][0])
            gated.B[key].copy_(adapter.B[key][0])
    gradients: list[float] = []

    class Gradients(lightning.Callback):
        def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
            found = [p.grad for p in module.parameters() if p.grad is not None]
            gradients.append(max(float(g.abs().max()) for g in found))

    run.trainer.callbacks.append(Gradients())
    run.fit()
    assert run.figures("divergence")[0] < 1e-6 and gradients[0] < 1e-5
    other = Run(word_base, reader, tasks, 1, architecture={"gate": True}, rank=4).fit()
    assert other.figures("divergence")[0] > 0.1
