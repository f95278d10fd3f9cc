"""The gate of a name: how many rows of its suite a new version passes, and the current one.

Each answers greedily with the prompt of its own usage; an answer passes that is equal to an
accepted one as `exact_match` compares them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from api.service.job_store import JobRow, Keep
from api.service.jobs import Share
from api.service.making import Making
from api.service.name_state import Contest, Scores, Version
from api.service.names import NameStore
from generator.engine import Engine
from generator.refine.training import LONGEST
from library.adapter import Adapter
from library.base.decode import greedy
from library.base.models import BaseModel
from library.base.prompts import prompt_ids
from library.base.usage import Usage
from library.errors import UsageError
from library.tasks.files import Example
from library.tasks.metrics import exact_match

TOGETHER = 8  # rows that are answered in one batch; a job can be cancelled after each


@dataclass(frozen=True)
class Answerer:
    """A base under one adapter, and the prompt that this is for."""

    base: BaseModel
    adapter: Adapter
    usage: Usage


def contest_scores(
    contest: Contest,
    answerer: Callable[[str], Answerer],
    at_least: int | None,
    progress: Share,
) -> Scores:
    """How many rows both versions pass.

    Args:
        answerer: loads an adapter by its id.
        at_least: rows that are asked for whatever the current version passes.
        progress: called with the share of answers that are there; what it raises ends the work.
    Raises:
        UsageError: a row is too long in the prompt of a version; and as `answerer` does.
    """
    rows, done = contest.suite.rows, 0
    total = len(rows) * (1 if contest.current is None else 2)

    def passed(version: Version) -> int:
        nonlocal done
        one, right = answerer(version.adapter), 0
        prompts = _prompts(one, rows, version)
        for start in range(0, len(rows), TOGETHER):
            part = rows[start : start + TOGETHER]
            right += _right(one, prompts[start : start + TOGETHER], part)
            done += len(part)
            progress(done / total)
        return right

    before = None if contest.current is None else passed(contest.current)
    return Scores(before, passed(contest.candidate), len(rows), at_least)


class Promotions:
    """Promotes names of a service, as jobs.

    Args:
        names: where they are kept.
        making: reads stored adapters.
        engine: gives what has the base models, once it is loaded.
    """

    def __init__(self, names: NameStore, making: Making, engine: Callable[[], Engine]) -> None:
        self._names, self._making, self._engine = names, making, engine

    def contest(self, owner: str, name: str, version: int | None) -> Contest:
        """What a job will compare. Raises NotFound, Conflict; as Making.start of the candidate."""
        contest = self._names.get(owner, name).contest(version)
        self._making.start(owner, contest.candidate.adapter)
        return contest

    def promote_by_job(self, job: JobRow, share: Share) -> Keep:
        """Both versions measured, and what stores and gives the outcome."""
        asked, owner = job.request, job.owner
        contest = self._names.get(owner, asked["name"]).contest(asked["version"])
        answerer = partial(self._answerer, owner)
        scores = contest_scores(contest, answerer, asked["at_least"], share)
        return lambda: {
            "name": contest.name,
            **self._names.record(owner, contest, scores).to_dict(),
        }

    def _answerer(self, owner: str, identity: str) -> Answerer:
        """A stored adapter on its base. Raises as Making.start does."""
        start, base = self._making.start(owner, identity)
        model = self._engine().resources.model(base)
        return Answerer(model, start.adapters[0], start.usages[0])


def _prompts(one: Answerer, rows: Sequence[Example], version: Version) -> list[list[int]]:
    """Token ids of every row. Raises UsageError for a row that is too long."""
    prompts = [prompt_ids(one.base.tokenizer, one.usage.message(row.input)) for row in rows]
    for number, prompt in enumerate(prompts, 1):
        if len(prompt) > LONGEST:
            raise UsageError(
                f"row {number} of the suite has {len(prompt):,} tokens in the prompt of "
                f"v{version.number}, more than {LONGEST:,}"
            )
    return prompts


def _right(one: Answerer, prompts: Sequence[list[int]], rows: Sequence[Example]) -> int:
    """How many rows are answered with an accepted answer."""
    answers = greedy(one.base, prompts, one.adapter.to(one.base.device), [0] * len(prompts))
    return sum(exact_match(a, row.outputs) == 1 for a, row in zip(answers, rows, strict=True))
