"""Distillation: the student comes to say what its teacher says, and the base where it should."""

from pathlib import Path

import pytest
import tiny
import torch
from distilling import Run, tasks  # noqa: F401  (a fixture)
from teachers import teacher, write_teacher  # noqa: F401  (a fixture)
from torch import Tensor
from words import word_base  # noqa: F401  (a fixture)

from generator.engine import Engine, read_generator
from generator.models.base import Condition
from generator.request import Request
from generator.strategies.multi_task import MultiTask
from index.encoders.descriptions import DescriptionEncoder
from library.base.models import resolve_base
from library.errors import LayoutMismatch
from training.data.sampling import SamplingConfig

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


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
    single = MultiTask(teacher).stored(base)
    assert checkpoint.info.onto == single.weights_digest
    tiny.randomise(checkpoint.module, std=0.3)
    engine = Engine([checkpoint], multi_task=[teacher])
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
        Engine([checkpoint], multi_task=[other]).propose("text-to-lora", Request("say red"), base)


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
