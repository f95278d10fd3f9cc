"""Distillation: its gradient by hand, equals that stay, a student that learns, what is refused."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import pytest
import tiny
import torch
from teachers import teacher, write_teacher  # noqa: F401  (a fixture)
from torch import Tensor
from words import WORDS, word_base, write_tasks  # noqa: F401  (a fixture)

from generator.engine import Engine, read_generator
from generator.models.base import Condition
from generator.models.text_to_lora import TextToLoRA
from generator.request import Request
from generator.strategies.multi_task import MultiTask
from index.encoders.descriptions import DEFAULT_ENCODER, DescriptionEncoder
from library.base.models import load_base, load_config, resolve_base
from library.checkpoint import CheckpointInfo, save_checkpoint
from library.errors import LayoutMismatch, MissingPath, TaskFileError, UsageError
from library.layout import layout_of
from library.peft.read import read_peft
from training.cli import run_lightning
from training.data.batches import TaskBatch, TaughtRow
from training.data.sampling import SamplingConfig
from training.data.tasks import TaskDataModule
from training.data.taught import TaughtDataModule
from training.objectives import lessons
from training.objectives.condition_noise import ConditionNoise
from training.objectives.distillation import Distillation
from training.objectives.module import OptimiserConfig

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
ARCHITECTURE = {"latent": 16, "head_in": 24, "queries": 2, "words_dim": 384, "dropout": 0.0}


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    return write_tasks(tmp_path / "tasks", {"a": "red", "b": "blue sky"})


class Run(lightning.Callback):
    """A training by distillation; keeps what each step logged, and the run's state half-way."""

    def __init__(
        self, base: Path, teacher: Path, tasks: Path, steps: int, *, lr: float = 1e-2,
        nothing: float = 0.0, aside: float = 0.0, sampling: SamplingConfig | None = None,
        callbacks: Sequence[lightning.Callback] = (), half: Path | None = None,
        architecture: dict[str, Any] | None = None, clip: float | None = None,
        val_every: int | None = None, **settings: Any,
    ) -> None:  # fmt: skip
        lightning.seed_everything(0)
        self.module = Distillation(
            **{
                "teacher": str(teacher), "generator": TextToLoRA, "base": str(base),
                "targets": ["q_proj", "v_proj", "o_proj"], "rank": 4, "storage": "float32",
                "architecture": {**ARCHITECTURE, **(architecture or {})},
                "optimiser": OptimiserConfig(lr, weight_decay=0.0), "neftune_alpha": 0.0,
                "weight_penalty": 0.0, **settings,
            }
        )  # fmt: skip
        self.data = TaughtDataModule(
            tasks=[str(tasks)], base=str(base), steps=steps, set_aside_share=aside,
            nothing_share=nothing,
            sampling=sampling or SamplingConfig(2, 3, prompted_share=0.3, micro_batches=2),
        )  # fmt: skip
        self.logged: list[dict[str, float]] = []
        self.half, self.steps = half, steps
        self.trainer = lightning.Trainer(
            accelerator="cpu", max_epochs=1, callbacks=[self, *callbacks], logger=False,
            enable_checkpointing=any("Checkpoint" in type(c).__name__ for c in callbacks),
            enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
            gradient_clip_val=clip, val_check_interval=val_every,
        )  # fmt: skip

    def fit(self, checkpoint: Path | None = None) -> "Run":
        self.trainer.fit(self.module, self.data, ckpt_path=checkpoint, weights_only=True)
        return self

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        self.logged.append({k: float(v) for k, v in trainer.callback_metrics.items()})
        if self.half is not None and trainer.global_step == self.steps // 2:
            trainer.save_checkpoint(self.half)

    def figures(self, name: str) -> list[float]:
        return [step[f"train_{name}"] for step in self.logged]


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


def agreement(run: Run) -> list[float]:
    """Shares of the answers' tokens at which the reading teacher says the same as others do, bare.

    The others are the student, the student of the other description, and the base.
    """
    step = run.data.training_steps()[run.steps - 1]
    batch = run.data.transfer_batch_to_device(step, torch.device("cpu"), 0)
    module = run.module.eval()
    hooks, model = module.frozen._hooks, module.frozen.base.model
    adapter, same = module.generator(module.condition(batch)), []

    @torch.no_grad()
    def says(prompt: list[int], said: list[int]) -> Tensor:
        logits = model(input_ids=torch.tensor([prompt + said])).logits[0]
        return logits[len(prompt) - 1 : -1].argmax(-1)

    for row, said in zip(batch.taught, module.answers(batch.taught), strict=True):
        hooks.set(module.teacher, torch.tensor([0]))
        wanted, others = says(row.read, said), []
        for owner in (row.owner, 1 - row.owner):
            hooks.set(adapter, torch.tensor([owner]))
            others.append(says(row.prompt, said))
        hooks.clear()
        others.append(says(row.prompt, said))
        same.append(torch.stack([(other == wanted).float().mean() for other in others]))
    return torch.stack(same).mean(dim=0).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("labels", ["given", "teacher"])
def test_bare_it_learns_to_say_what_the_teacher_reads(
    word_base: Path, teacher: Path, tasks: Path, labels: str
) -> None:
    """Two descriptions with the same inputs, which only the teacher sees in its prompt."""
    sampling = SamplingConfig(2, 8, prompted_share=0.0, micro_batches=1)
    run = Run(
        word_base, teacher, tasks, 120, lr=2e-2, sampling=sampling, labels=labels,
        max_new_tokens=3, clip=1.0,
    ).fit()  # fmt: skip
    divergences = run.figures("divergence")
    assert sum(divergences[-10:]) < 0.1 * sum(divergences[:10])
    student, of_the_other, base = agreement(run)
    assert student > 0.9 and student > of_the_other + 0.1 and student > base + 0.5


@pytest.mark.slow
def test_onto_the_teacher_it_begins_as_the_teacher(
    word_base: Path, teacher: Path, tasks: Path, tmp_path: Path
) -> None:
    """Before training it is the teacher; the checkpoint names it, and requests get both as one."""
    prompted = SamplingConfig(2, 3, prompted_share=1.0, definition_share=1.0)
    run = Run(
        word_base, teacher, tasks, 2, sampling=prompted, onto_teacher=True, lr=0.0, nothing=0.5,
        out=str(tmp_path / "out"),
    ).fit()  # fmt: skip
    assert run.figures("divergence")[0] < 1e-6
    assert run.figures("nothing_divergence")[0] < 1e-6
    alone = Run(word_base, teacher, tasks, 2, sampling=prompted, lr=0.0).fit()
    assert alone.figures("divergence")[0] > 0.1

    checkpoint, base = read_generator(tmp_path / "out"), resolve_base(str(word_base))
    single = MultiTask(teacher)
    assert checkpoint.info.onto == single.weights_digest
    tiny.randomise(checkpoint.module, std=0.3)
    engine = Engine([checkpoint], multi_task=teacher)
    made = engine.propose("text-to-lora", Request("say red"), base).adapter
    text = DescriptionEncoder().encode(["say red"])
    own = tiny.deltas(checkpoint.module(Condition(text=text)))
    static = tiny.deltas(single.adapter_for(base).to(dtype=torch.float64))
    for name, delta in tiny.deltas(made).items():
        expected = [part[name] for part in (own, static) if name in part]
        torch.testing.assert_close(delta, torch.stack(expected).sum(dim=0))
    assert made.layout == engine.generated["text-to-lora"].offer(base).layout

    other = write_teacher(tmp_path / "other", str(word_base), single.adapter_for(base).scaled(2.0))
    with pytest.raises(LayoutMismatch, match="added to the multi-task adapter"):
        Engine([checkpoint], multi_task=other).propose("text-to-lora", Request("say red"), base)


def test_conditions_that_ask_for_nothing_pull_to_the_base(
    word_base: Path,
    teacher: Path,
    tasks: Path,
) -> None:
    run = Run(
        word_base, teacher, tasks, 60, lr=5e-3, nothing=0.5, clip=1.0,
        sampling=SamplingConfig(4, 4, prompted_share=0.0, micro_batches=1),
    )  # fmt: skip
    tiny.randomise(run.module.generator, std=0.5)  # its adapters do change answers
    off = run.fit().figures("nothing_divergence")
    assert sum(off[-10:]) < 0.4 * sum(off[:10]) and off[0] > 0.1


@pytest.mark.slow
def test_a_resumed_run_ends_where_an_unbroken_one_does(
    word_base: Path,
    teacher: Path,
    tasks: Path,
    tmp_path: Path,
) -> None:
    settings: dict[str, Any] = {
        "nothing": 0.5, "labels": "teacher", "temperature": 1.0, "max_new_tokens": 3,
        "architecture": {"gate": True}, "gate_penalty": 0.01,
    }  # fmt: skip
    whole = Run(word_base, teacher, tasks, 6, half=tmp_path / "half.ckpt", **settings).fit()
    resumed = Run(word_base, teacher, tasks, 6, **settings).fit(tmp_path / "half.ckpt")
    assert resumed.figures("loss") == pytest.approx(whole.figures("loss")[3:], abs=1e-5)
    after, wanted = resumed.module.state_dict(), whole.module.state_dict()
    for key, value in wanted.items():
        torch.testing.assert_close(after[key], value, atol=1e-6, rtol=1e-5)


@pytest.mark.slow
def test_gate_and_noise_are_for_training_alone(
    word_base: Path,
    teacher: Path,
    tasks: Path,
    tmp_path: Path,
) -> None:
    def run(penalty: float, noise: ConditionNoise = ConditionNoise()) -> Run:
        gate = {"gate": True}
        made = Run(
            word_base, teacher, tasks, 25, architecture=gate, gate_penalty=penalty,
            condition_noise=noise, clip=1.0, out=str(tmp_path / "out"),
        )  # fmt: skip
        return made.fit()

    free, small = run(0.0), run(10.0)
    assert 0 < small.figures("gated_norm")[-1] < 0.5 * free.figures("gated_norm")[-1]
    assert free.figures("gate")[0] == pytest.approx(0.1192, abs=1e-3)
    noise = ConditionNoise(0.3, 0.2)
    noisy = run(0.0, noise)
    assert noisy.figures("loss")[5:] != free.figures("loss")[5:]
    record = read_generator(tmp_path / "out").info.training["settings"]
    assert record["condition_noise"] == {"scale": 0.3, "word_dropout": 0.2}
    batch = noisy.data.transfer_batch_to_device(
        noisy.data.training_steps()[0], torch.device("cpu"), 0
    )
    condition = noisy.module.condition(batch)  # as validation reads it
    assert condition.text is batch.embeddings
    with torch.no_grad():
        calm, *drawn = (
            noisy.module.generator(c) for c in (condition, *map(noise, (condition, condition)))
        )
    one, two, three = (adapter.factors()[-1] for adapter in (calm, *drawn))
    assert not torch.equal(one, two) and not torch.equal(two, three)


class States(lightning.Callback):
    """The generator's state and the margin at every validation."""

    def __init__(self) -> None:
        self.seen: dict[int, tuple[float, dict[str, Tensor]]] = {}

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        state = {k: v.clone() for k, v in pl_module.generator.state_dict().items()}
        self.seen[trainer.global_step] = float(trainer.callback_metrics["val_margin"]), state


@pytest.mark.slow
@pytest.mark.parametrize(("by", "mode"), [("val_margin", "max"), (None, "max")])
def test_the_best_state_by_a_monitored_figure_is_exported(
    word_base: Path,
    teacher: Path,
    tmp_path: Path,
    by: str | None,
    mode: str,
) -> None:
    answers = {"a": "red", "b": "blue", "c": "sun", "d": "sea", "e": "tree", "f": "sky"}
    tasks = write_tasks(tmp_path / "tasks", answers)
    keep = lightning.pytorch.callbacks.ModelCheckpoint(
        tmp_path / "kept", monitor=by, mode=mode, filename="best"
    )
    states = States()
    Run(
        word_base, teacher, tasks, 8, lr=3e-2, aside=0.5, label_weight=0.5, val_every=2,
        callbacks=[states, keep], out=str(tmp_path / "out"),
    ).fit()  # fmt: skip
    assert list(states.seen) == [2, 4, 6, 8]
    best = max(states.seen, key=lambda step: states.seen[step][0]) if by else 8
    exported = read_generator(tmp_path / "out")
    margin, state = states.seen[best]
    assert all(torch.equal(v, state[k]) for k, v in exported.module.state_dict().items())
    chosen = {"by": by, "score": pytest.approx(margin), "step": best}
    assert exported.info.training["chosen"] == (chosen if by else None)
    assert len({margin for margin, _ in states.seen.values()}) == 4


@pytest.mark.slow
def test_a_checkpoint_records_its_teacher_and_whence_it_comes(
    word_base: Path,
    teacher: Path,
    tasks: Path,
    tmp_path: Path,
) -> None:
    first = Run(word_base, teacher, tasks, 1).module.generator
    tiny.randomise(first, std=0.1)
    info = CheckpointInfo({"id": "x", "sha256": None, "source": ""}, DEFAULT_ENCODER, ["seen"])
    save_checkpoint(tmp_path / "start", first, info)
    run = Run(
        word_base, teacher, tasks, 1, lr=0.0, out=str(tmp_path / "out"), nothing=0.5,
        start=str(tmp_path / "start"), label_weight=0.25,
    ).fit()  # fmt: skip
    exported = read_generator(tmp_path / "out")
    for key, value in first.state_dict().items():
        torch.testing.assert_close(exported.module.state_dict()[key], value)
    assert exported.info.tasks == ["a", "b", "read before", "seen"]
    settings = exported.info.training["settings"]
    assert settings["start_digest"] == read_generator(tmp_path / "start").digest
    assert settings["teacher_digest"] == run.module.teacher_digest
    assert (settings["labels"], settings["label_weight"]) == ("given", 0.25)
    assert exported.info.training["objective"] == "Distillation"
    assert exported.info.training["data"]["nothing_share"] == 0.5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_recipe_runs(
    word_base: Path,
    teacher: Path,
    tmp_path: Path,
) -> None:
    tasks = write_tasks(tmp_path / "tasks", {"a": "red", "b": "blue", "c": "sun", "d": "sea"})
    run_lightning([
        "fit", "--config", str(tiny.ROOT / "configs" / "text_to_lora_distilled.yaml"),
        "--model.teacher", str(teacher), "--model.base", str(word_base),
        "--data.base", str(word_base), "--model.out", str(tmp_path / "out"),
        "--model.architecture", "{latent: 16, head_in: 24, queries: 2, words_dim: 384, gate: true}",
        "--model.gate_penalty", "0.01",
        "--model.condition_noise", "{scale: 0.1, word_dropout: 0.1}",
        "--data.tasks", f"[{tasks}]", "--data.set_aside_share", "0.5", "--data.steps", "2",
        "--data.nothing_share", "0.25", "--trainer.max_steps", "2",
        "--trainer.val_check_interval", "1", "--data.sampling.tasks_per_step", "4",
        "--trainer.log_every_n_steps", "1", "--trainer.default_root_dir", str(tmp_path),
        "--trainer.accelerator", "cpu", "--trainer.logger.init_args.save_dir", str(tmp_path),
    ])  # fmt: skip
    record = read_generator(tmp_path / "out").info.training
    assert record["objective"] == "Distillation" and record["steps"] == 2
    assert record["chosen"]["by"] == "val_margin" and record["chosen"]["step"] in (1, 2)
    header = (tmp_path / "lightning_logs/version_0/metrics.csv").read_text().splitlines()[0]
    logged = {"loss", "divergence", "label_loss", "nothing_divergence", "gate", "gated_norm"}
    assert {f"train_{name}" for name in logged} <= set(header.split(","))
    assert {"val_loss", "val_margin", "tokens", "seconds"} <= set(header.split(","))


def test_what_cannot_be_taught(
    word_base: Path,
    teacher: Path,
    tasks: Path,
    tmp_path: Path,
) -> None:
    with pytest.raises(MissingPath, match="no teacher's folder at"):
        Run(word_base, tmp_path / "nowhere", tasks, 1)
    layout = layout_of(load_config(resolve_base(str(word_base))), rank=2)
    foreign = write_teacher(tmp_path / "foreign", "another/base", tiny.adapter(layout))
    deep = tiny.config("llama", num_hidden_layers=3)
    deeper = write_teacher(
        tmp_path / "deeper", str(word_base), tiny.adapter(layout_of(deep, rank=2))
    )
    for folder, said in ((foreign, "is for another/base, not for"), (deeper, "the base's layout")):
        with pytest.raises(LayoutMismatch, match=said) as raised:
            Run(word_base, folder, tasks, 1)
        assert "\n" not in str(raised.value)
    for wrong, said in (
        ({"label_weight": -1.0}, "must not be negative"),
        ({"max_new_tokens": 0}, "at least 1"),
        ({"gate_penalty": 0.1}, "architecture.gate true"),
        ({"neftune_alpha": 5.0}, "neftune_alpha is 0"),
    ):
        with pytest.raises(UsageError, match=said):
            Run(word_base, teacher, tasks, 1, **wrong)
    run = Run(word_base, teacher, tasks, 1)
    with pytest.raises(UsageError, match=r"training\.data\.taught\.TaughtDataModule"):
        run.trainer.fit(run.module, TaskDataModule([str(tasks)], base=str(word_base), steps=1))
    short = replace(run.data.sampling, max_length=4)
    with pytest.raises(TaskFileError, match="max_length"):
        Run(word_base, teacher, tasks, 1, sampling=short).fit()
