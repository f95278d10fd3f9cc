"""Reward: its gradient by hand, a bandit that is learnt, and what a checkpoint records of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from words import word_base, write_tasks  # noqa: F401  (a fixture)

from generator.engine import read_generator
from generator.layers.config import TextToLoRAConfig
from generator.models.text_to_lora import TextToLoRA
from index.encoders.descriptions import DEFAULT_ENCODER
from library.base.models import load_config, resolve_base
from library.checkpoint import CheckpointInfo, save_checkpoint
from library.errors import LayoutMismatch, MissingPath, UsageError
from library.layout import layout_of
from library.tasks.metrics import rouge_l
from training.cli import run_lightning
from training.data.batches import PromptRow, TaskBatch
from training.data.sampling import SamplingConfig
from training.data.tasks import TaskDataModule
from training.objectives.module import OptimiserConfig
from training.objectives.policy_gradient import Answered, PolicyTerms, advantages
from training.objectives.reward import AnswerConfig, Reward

REWARDS = st.integers(1, 6).flatmap(
    lambda k: st.lists(
        st.lists(st.sampled_from([0.0, 0.25, 1 / 3, 1.0]), min_size=k, max_size=k), min_size=1
    )
)


@given(REWARDS)
def test_advantages_are_what_a_reward_is_above_its_prompts_mean(rows: list[list[float]]) -> None:
    rewards = torch.tensor(rows)
    found = advantages(rewards)
    torch.testing.assert_close(found.sum(dim=1), torch.zeros(len(rows)))
    torch.testing.assert_close(advantages(rewards + 0.5), found)
    assert torch.equal(advantages(rewards.flip(0)), found.flip(0))  # prompts are independent
    for row, one in zip(rows, found, strict=True):
        assert bool(one.any()) == (len(set(row)) > 1)
    k = rewards.shape[1]
    if k > 1:  # RLOO's, whose baseline leaves the answer itself out, times (k-1)/k
        others = (rewards.sum(dim=1, keepdim=True) - rewards) / (k - 1)
        torch.testing.assert_close(found, (rewards - others) * (k - 1) / k)


def test_answers_are_grouped_by_length_with_their_own_advantages() -> None:
    asked = [PromptRow(i // 2, [5] * (9 - i // 2), ("x",)) for i in range(6)]
    answers = [[10 + i] * (1 + 5 * (i % 3)) for i in range(6)]
    rewards = torch.tensor([[0.0, 1.0], [0.5, 0.5], [0.0, 0.5]])
    found = Answered.of(asked, answers, rewards, 0, 3, torch.device("cpu"))
    wanted, seen = advantages(rewards).flatten(), []
    for group, values in zip(found.groups, found.advantages, strict=True):
        for ids, answer, owner, value in zip(
            group.ids, group.answer, group.rows, values, strict=True
        ):
            said = ids.roll(-1)[answer].tolist()
            row = answers.index(said)
            assert owner == row // 2 and value == wanted[row]
            assert int(answer.nonzero()[0]) == len(asked[row].prompt) - 1
            seen.append(row)
    assert sorted(seen) == list(range(6)) and len(found.groups) > 1
    figures = found.figures()
    assert figures["reward"] == pytest.approx(2.5 / 6)
    assert figures["varied"] == pytest.approx(2 / 3)
    assert figures["answer_length"] == 6.0
    terms = PolicyTerms(found)
    for number, group in enumerate(found.groups):
        terms(number, torch.full((len(group.ids),), 0.7))
    assert terms.figures() == {"entropy": pytest.approx(0.7)}


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory, word_base: Path) -> Path:
    """Text-to-LoRA for `word_base` with random weights everywhere, and dropout."""
    layout = layout_of(load_config(resolve_base(str(word_base))), rank=2)
    config = TextToLoRAConfig(384, latent=16, head_in=24, queries=2, dropout=0.3)
    module = TextToLoRA(config, layout)
    tiny.randomise(module, std=0.2)
    folder = tmp_path_factory.mktemp("start") / "start"
    base = {"id": str(word_base), "sha256": None, "source": "random"}
    save_checkpoint(folder, module, CheckpointInfo(base, DEFAULT_ENCODER, ["seen"]))
    return folder


class Run(lightning.Callback):
    """A training with Reward; keeps what each step logged."""

    def __init__(
        self, base: Path, start: Path, tasks: Path, steps: int, *, lr: float = 1e-2,
        aside: float = 0.0, callbacks: Sequence[lightning.Callback] = (), **settings: Any,
    ) -> None:  # fmt: skip
        lightning.seed_everything(0)
        optimiser = OptimiserConfig(lr, weight_decay=0.0)
        self.module = Reward(
            str(start), base=str(base), optimiser=optimiser, storage="float32", **settings
        )
        self.data = TaskDataModule(
            [str(tasks)], base=str(base), sampling=SamplingConfig(2, 3), steps=steps,
            set_aside_share=aside,
        )  # fmt: skip
        self.logged: list[dict[str, float]] = []
        self.trainer = lightning.Trainer(
            accelerator="cpu", max_epochs=1, callbacks=[self, *callbacks], logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            num_sanity_val_steps=-1,
        )  # fmt: skip
        self.trainer.fit(self.module, self.data)

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        assert not self.module.generator.training
        self.logged.append({k: float(v) for k, v in trainer.callback_metrics.items()})

    def figures(self, name: str) -> list[float]:
        return [step[name] for step in self.logged]


class ByHand(lightning.Callback):
    """Compares a step's gradient with REINFORCE written out, one answer at a time, unpadded."""

    compared = 0
    temperature, kl_weight = 1.0, 0.0

    def on_train_batch_start(
        self, trainer: Any, pl_module: Reward, batch: TaskBatch, batch_idx: int
    ) -> None:
        tiny.randomise(pl_module.generator, seed=1, std=0.2)  # not what it started from
        frozen, k = pl_module.frozen, pl_module.answers.k
        condition = pl_module.condition(batch)
        adapter = pl_module.generator(condition)
        rows = [row for row in batch.asked for _ in range(k)]
        answers = pl_module._answers(rows, adapter.detached(), pl_module._sampling())
        scores, chances = [], []
        for row, said in zip(rows, answers, strict=True):
            text = frozen.base.tokenizer.decode(said, skip_special_tokens=True)
            scores.append(rouge_l(text, row.references))
            for one in (adapter, pl_module.starting(condition)):
                frozen._hooks.set(one, torch.tensor([row.owner]))
                logits = frozen.base.model(input_ids=torch.tensor([row.prompt + said])).logits[0]
                log = (logits / self.temperature).log_softmax(-1)[len(row.prompt) - 1 : -1]
                chances.append(log[torch.arange(len(said)), said].sum())
        frozen._hooks.clear()
        terms = []
        for i, (log_p, before) in enumerate(zip(chances[::2], chances[1::2], strict=True)):
            mean = sum(scores[i - i % k : i - i % k + k]) / k
            kl = (log_p - before).detach() * log_p  # its gradient is that of KL(p | start)
            terms.append(-(scores[i] - mean) * log_p + self.kl_weight * kl)
        loss = torch.stack(terms).mean()
        self.direct = torch.autograd.grad(loss, list(pl_module.generator.parameters()))

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        largest = max(float(wanted.abs().max()) for wanted in self.direct)
        for parameter, wanted in zip(pl_module.generator.parameters(), self.direct, strict=True):
            torch.testing.assert_close(parameter.grad, wanted, atol=2e-5 * largest, rtol=1e-3)
            self.compared += bool(wanted.any())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("temperature", "kl_weight"), [(1.0, 0.0), (0.7, 0.0), (1.3, 0.2)])
def test_the_gradient_is_reinforce_by_hand(
    word_base: Path, start: Path, tmp_path: Path, temperature: float, kl_weight: float
) -> None:
    tasks = write_tasks(tmp_path / "tasks", {"a": "red", "b": "blue sky"})
    check = ByHand()
    check.temperature, check.kl_weight = temperature, kl_weight
    answers = AnswerConfig(k=5, temperature=temperature, max_new_tokens=4, batch_size=7)
    run = Run(
        word_base, start, tasks, 2, answers=answers, kl_weight=kl_weight, micro_batches=3,
        callbacks=[check],
    )  # fmt: skip
    assert check.compared > 20
    assert all(0 < share <= 1 for share in run.figures("varied"))
    assert ("kl" in run.logged[0]) == (kl_weight > 0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_equal_rewards_teach_nothing(word_base: Path, start: Path, tmp_path: Path) -> None:
    tasks = write_tasks(tmp_path / "tasks", {"a": "unheard", "b": "of"})
    run = Run(word_base, start, tasks, 2, answers=AnswerConfig(k=3, max_new_tokens=4))
    assert run.figures("reward") == run.figures("varied") == [0.0, 0.0]
    assert run.figures("entropy")[0] > 0.5
    before, after = read_generator(start).module, run.module.generator
    for name, value in after.state_dict().items():
        assert torch.equal(value, before.state_dict()[name])
    assert all(not p.grad.any() for p in after.parameters() if p.grad is not None)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_reward_rises_and_a_seed_decides_the_run(
    word_base: Path, start: Path, tmp_path: Path
) -> None:
    """One task, ten words, and a reward for one of them."""
    tasks = write_tasks(tmp_path / "tasks", {"a": "red"})
    answers = AnswerConfig(k=8, max_new_tokens=2)
    run = Run(word_base, start, tasks, 40, answers=answers)
    rewards = run.figures("reward")
    assert sum(rewards[:5]) / 5 < 0.3 < 0.6 < sum(rewards[-5:]) / 5
    assert run.figures("entropy")[-1] < run.figures("entropy")[0]
    again = Run(word_base, start, tasks, 3, answers=answers, seed=0)
    other = Run(word_base, start, tasks, 3, answers=answers, seed=1)
    assert again.figures("reward")[0] == rewards[0]
    assert other.figures("reward") != again.figures("reward")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_checkpoint_records_the_reward_before_and_after_and_the_tasks_of_its_start(
    word_base: Path, start: Path, tmp_path: Path
) -> None:
    tasks = write_tasks(tmp_path / "tasks", {"a": "red", "b": "red", "c": "red"})
    run = Run(
        word_base, start, tasks, 20, aside=0.34, answers=AnswerConfig(max_new_tokens=2),
        out=str(tmp_path / "out"),
    )  # fmt: skip
    exported = read_generator(tmp_path / "out")
    aside = {task.name for task in run.data.held_back}
    assert len(aside) == 1
    assert set(exported.info.tasks) == {"a", "b", "c", "seen"} - aside
    settings = exported.info.training["settings"]
    assert settings["start_digest"] == read_generator(start).digest
    (first, before), (last, after) = settings["val_reward"]
    assert (first, last) == (0, 20)
    # Before any step it is the start's own, measured as it is afterwards.
    alone = lightning.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False
    )
    module = Reward(str(start), base=str(word_base), answers=AnswerConfig(max_new_tokens=2))
    measured = alone.validate(module, run.data, verbose=False)[0]["val_reward"]
    assert measured == pytest.approx(before)
    assert after > before
    module = Reward(
        str(tmp_path / "out"), base=str(word_base), answers=AnswerConfig(max_new_tokens=2)
    )
    assert alone.validate(module, run.data, verbose=False)[0]["val_reward"] == pytest.approx(after)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_recipe_runs(word_base: Path, start: Path, tmp_path: Path) -> None:
    tasks = write_tasks(tmp_path / "tasks", {"a": "red", "b": "blue", "c": "sun", "d": "sea"})
    run_lightning([
        "fit", "--config", str(tiny.ROOT / "configs" / "text_to_lora_reward.yaml"),
        "--model.start", str(start), "--model.base", str(word_base), "--data.base", str(word_base),
        "--data.encoder", DEFAULT_ENCODER,
        "--model.out", str(tmp_path / "out"), "--model.kl_weight", "0.1",
        "--model.answers.max_new_tokens", "3", "--data.tasks", f"[{tasks}]",
        "--data.set_aside_share", "0.25", "--data.steps", "2", "--trainer.max_steps", "2",
        "--trainer.val_check_interval", "2", "--data.sampling.tasks_per_step", "3",
        "--trainer.default_root_dir", str(tmp_path), "--trainer.accelerator", "cpu",
        "--trainer.logger.init_args.save_dir", str(tmp_path),
    ])  # fmt: skip
    record = read_generator(tmp_path / "out").info.training
    assert record["objective"] == "Reward" and record["steps"] == 2
    assert [step for step, _ in record["settings"]["val_reward"]] == [0, 2]
    assert record["settings"]["metric"] == "rouge_l" and record["settings"]["kl_weight"] == 0.1
    header = (tmp_path / "lightning_logs/version_0/metrics.csv").read_text().splitlines()[0]
    logged = {"reward", "varied", "answer_length", "entropy", "kl", "val_reward", "train_loss"}
    assert logged <= set(header.split(","))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_cannot_be_trained(word_base: Path, start: Path, tmp_path: Path) -> None:
    wrong = ("k", 1), ("temperature", 0.0), ("max_new_tokens", 0), ("batch_size", 0)
    for name, value in wrong:
        with pytest.raises(UsageError, match=f"{name}.* must be"):
            AnswerConfig(**{name: value})  # type: ignore[arg-type]
    with pytest.raises(MissingPath):
        Reward(str(tmp_path / "nowhere"))
    with pytest.raises(LayoutMismatch):
        Reward(str(start))  # the default base is another
    with pytest.raises(UsageError, match="embedded by"):
        tasks = write_tasks(tmp_path / "tasks", {"a": "red"})
        data = TaskDataModule([str(tasks)], base=str(word_base), encoder=None)
        trainer = lightning.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
        trainer.fit(Reward(str(start), base=str(word_base)), data)
