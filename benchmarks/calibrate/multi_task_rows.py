"""Rows for the multi-task adapter, all drawn and tokenised before its training."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader

from generator.refine.writer import ASK, MOST_TOKENS
from library.base.batches import TokenRow
from library.base.prompts import answer_ids, prompt_ids, user_turn
from library.tasks.files import Task
from training.data.batches import Wording
from training.data.relabel import Relabelling, relabellings
from training.data.steps import IndexedDataset
from training.data.task_variants import Variants
from training.synthetic.stream import SyntheticTasks

DRAWN = 200  # rows of a real task
LONGEST = 320  # tokens
RELABELLED, REWORDED = 0.3, 0.5
CHUNK = 500  # synthetic tasks that a process takes at a time


@dataclass(frozen=True)
class RowSource:
    """Where rows come from: real tasks, authored ones, then synthetic ones.

    Attributes:
        tokenizer: the base's.
        tasks: the real ones, then authored ones; of each real one `DRAWN` rows, half of them with
            another wording than the definition where there is one, 3 of 10 relabelled where the
            task has labels.
        authored_rows: rows of each authored one, worded likewise but never relabelled.
        variants: share of the rows of real and authored tasks that have further rules.
        synthetic: tasks without end, and
        visits: how many of them are visited; two rows a visit, one by either description.
        seed: of everything drawn from real and authored tasks.
        writes: whether inputs are to be written from the description alone, in place of answers;
            empty ones, and those of more tokens than are written, are left out.
    """

    tokenizer: Any
    tasks: Sequence[Task]
    authored_rows: int
    variants: float
    synthetic: SyntheticTasks
    visits: int
    seed: int
    writes: bool = False

    def rows(self, workers: int = 0) -> tuple[TokenRow, ...]:
        """All rows of at most `LONGEST` tokens, the same whatever the number of processes."""
        relabelled = relabellings(self.tasks, 24, self.seed)

        def part(i: int) -> list[TokenRow]:
            if i < len(self.tasks):
                return self._drawn(self.tasks[i], relabelled[i])
            return self._visited((i - len(self.tasks)) * CHUNK)

        parts = IndexedDataset(len(self.tasks) + math.ceil(self.visits / CHUNK), part)
        loader = DataLoader(parts, batch_size=None, num_workers=workers, collate_fn=lambda x: x)
        return tuple(row for some in loader for row in some if self._fits(row))

    def _drawn(self, task: Task, relabelled: Sequence[Relabelling]) -> list[TokenRow]:
        """Rows of a real or authored task, each with the instruction in a wording of its own."""
        rng, variants, rows = random.Random(f"{self.seed}/{task.name}"), Variants(task), []
        for example in rng.choices(task.train, k=self.authored_rows if task.authored else DRAWN):
            wording = _wording(rng, task, relabelled)
            text, row = wording.text, wording.pair(example)
            if rng.random() < self.variants:
                variant = variants.drawn(rng, [wording.pair(each) for each in task.train])
                text, row = variant.described(text, rng), variant.row(row)
            rows.append(self._row(text, row.input, row.output))
        return rows

    def _visited(self, first: int) -> list[TokenRow]:
        """Rows of synthetic tasks from a number on."""
        numbers, rows = range(first, min(first + CHUNK, self.visits)), []
        for task in (self.synthetic[number] for number in numbers):
            for j, text in enumerate((task.description, task.paraphrase)):
                example = task.row(j)
                rows.append(self._row(text, example.input, example.output))
        return rows

    def _row(self, instruction: str, text: str, answer: str) -> TokenRow:
        if self.writes:
            text, answer = ASK, text
        prompt = prompt_ids(self.tokenizer, user_turn("prompted", instruction, text))
        return TokenRow(0, prompt, answer_ids(self.tokenizer, answer))

    def _fits(self, row: TokenRow) -> bool:
        if self.writes and not 1 < len(row.answer) <= MOST_TOKENS:
            return False
        return len(row) <= LONGEST


def _wording(rng: random.Random, task: Task, relabelled: Sequence[Relabelling]) -> Wording:
    """An instruction, and what the answers become."""
    if relabelled and rng.random() < RELABELLED:
        chosen = rng.choice(relabelled)
        return Wording(chosen.definition, chosen.definition, chosen.labels)
    if len(task.descriptions) > 1 and rng.random() < REWORDED:
        return Wording(rng.choice(task.descriptions[1:]), task.definition)
    return Wording(task.definition, task.definition)
