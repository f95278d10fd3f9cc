"""Inputs of a task, written from its description alone by an adapter that was trained to.

A teacher's answers can be learned where there are no inputs at hand (as Magpie, Xu et al. 2024, has
an instructed model write what its users might ask; there without a description). They need not be
good: they are to be varied, and near enough to the task for its description to say something.
"""

from dataclasses import dataclass

from generator.refine.training import LONGEST
from library.adapter import Adapter
from library.base.decode import answer_text, decode
from library.base.models import BaseModel
from library.base.prompts import prompt_ids, user_turn
from library.base.sampling import Sampling
from library.errors import UsageError
from library.progress import Progress, no_progress

ASK = "Write one input of this task, and nothing else."  # what it was trained to be asked with
MOST_TOKENS = 96  # of an input
TEMPERATURE = 1.0
TOGETHER = {"cpu": 64, "cuda": 128}  # inputs that are written in one batch
MOST_DRAWS = 3  # times as many as are asked for; the rest came again or are empty


@dataclass(frozen=True)
class Writer:
    """An adapter that writes inputs of a task when it reads the description in its prompt.

    Attributes:
        adapter: n = 1.
        digest: SHA-256 of the file of its weights.
        description: of the task.
        count: of the inputs that it is to write.
    """

    adapter: Adapter
    digest: str
    description: str
    count: int


def written_inputs(
    base: BaseModel, writer: Writer, *, seed: int = 0, progress: Progress = no_progress
) -> tuple[str, ...]:
    """Different inputs, in the order in which they were drawn; fewer if most come again.

    Args:
        base: the loaded base model.
        seed: of what is drawn.
        progress: called with inputs written, and of how many.
    Raises:
        UsageError: the description is too long for a prompt, or nothing was written.
    """
    prompt = prompt_ids(base.tokenizer, user_turn("prompted", writer.description, ASK))
    if len(prompt) > LONGEST:
        raise UsageError(f"inputs are written for descriptions of up to {LONGEST} tokens")
    size = TOGETHER.get(base.device.type, TOGETHER["cpu"])
    sampling = Sampling.seeded(TEMPERATURE, f"{seed}/written-inputs")
    adapter, texts = writer.adapter.to(base.device), dict[str, None]()
    for _ in range(0, MOST_DRAWS * writer.count, size):
        drawn = decode(
            base, [prompt] * size, adapter, sampling=sampling, max_new_tokens=MOST_TOKENS,
            batch_size=size,
        )  # fmt: skip
        texts |= dict.fromkeys(text for text in (answer_text(base, ids) for ids in drawn) if text)
        progress(min(len(texts), writer.count), writer.count)
        if len(texts) >= writer.count:
            break
    if not texts:
        raise UsageError("not one input could be written from this description")
    return tuple(texts)[: writer.count]
