"""Methods of an evaluation: the base, alone or with examples, a library's adapters, a generator.

A method turns tasks into adapters (or none). After a strategy's name may stand a number of train
rows, its examples: a generator that reads examples makes the adapter from them (`icm-lora:5`), the
multi-task adapter has them in its prompt (`multi-task:5`), any other strategy's adapter is trained
on them (`auto:5`), and so is whatever `refine:` stands before (`refine:icm-lora:5`). After these,
`inputs-N` are N rows without their answers, which the teacher answers (`auto:inputs-64`,
`auto:5:inputs-64`), and `written-N` are N that are written from the description. A last suffix
swaps the description or the examples, and with it tests whether the adapter listens:
`text-to-lora:gibberish`, `text-to-lora:5:wrong-examples`. Of a generator that draws,
`icm-lora:ensemble:4` is four samples that answer together.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from generator.engine import DEFAULT_STRATEGY, Engine, strategy_names, takes_library
from generator.models.base import registered
from generator.refine.limits import MAX_EXAMPLES, MAX_INPUTS
from generator.request import Query, Request, UsageMode
from generator.samples import require_samples
from generator.strategies.base import Chosen, NothingNear, Proposal
from generator.strategies.fresh import Fresh
from generator.strategies.multi_task import SHOWN, MultiTask
from index.encoders.descriptions import InvalidDescription
from library.adapter import zeros
from library.base import task_vectors
from library.base.models import BaseReference
from library.errors import TaskFileError, UnknownName, UsageError
from library.tasks.files import Example, Task
from training.evaluation.swaps import DESCRIPTION_SWAPS, EXAMPLES_SWAPS, NO_DESCRIPTION

IN_CONTEXT = "in-context"
WITHOUT_ADAPTERS = ("base", IN_CONTEXT)
REFINE = "refine:"
INPUTS, WRITTEN = "inputs-", "written-"
ENSEMBLE = "ensemble"
FROM_LIBRARY = ("oracle", "soup", "top-k", "lego", "lora-rar", "lorahub:5", "lorahub:16")
ROUTED = ("per-request", "dlp")  # each row has an adapter, or a sum of some, of its own
SHOTS = 3  # examples in the prompt of in-context, where no number stands behind it
_WITHOUT_SUFFIX = (*WITHOUT_ADAPTERS, *FROM_LIBRARY, *ROUTED)


@dataclass(frozen=True)
class Method:
    """A name as it was typed, and its parts.

    Attributes:
        head: what makes the answers.
        suffix: what is swapped (training.evaluation.swaps).
        examples: number of a task's train rows that it goes by, or shows in the prompt.
        in_full: whether `refine:` stands before it, so that it is trained on them in any case.
        samples: number of adapters drawn for a task, whose logits are averaged.
        inputs: number of further rows that it is trained on as a teacher answers them, or
        written: of inputs that are written for that.
    """

    name: str
    head: str
    suffix: str = ""
    examples: int = 0
    in_full: bool = False
    samples: int = 1
    inputs: int = 0
    written: int = 0

    @property
    def generates(self) -> bool:
        return self.head in strategy_names()

    @property
    def is_generator(self) -> bool:
        """Whether it needs a generator's checkpoint."""
        return self.head in registered()

    @property
    def from_library(self) -> bool:
        return self.head in FROM_LIBRARY

    @property
    def takes_adapters(self) -> bool:
        """Whether it takes anything from a library."""
        return self.from_library or self.routed or takes_library(self.head)

    @property
    def routed(self) -> bool:
        return self.head in ROUTED


def parse_methods(text: str) -> list[Method]:
    """Parse `a,b:suffix`. Raises UnknownName, UsageError."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise UsageError("no methods given")
    if len(set(names)) != len(names):
        raise UsageError("a method is named twice")
    return [_parse(name) for name in names]


def _parse(name: str) -> Method:
    if name in _WITHOUT_SUFFIX:
        return Method(name, name)
    in_full = name.startswith(REFINE)
    head, *parts = name.removeprefix(REFINE).split(":")
    ensemble = len(parts) == 2 and parts[0] == ENSEMBLE and parts[1].isdecimal()
    if ensemble and head in strategy_names() and not in_full:
        require_samples(head, int(parts[1]))
        return Method(name, head, samples=int(parts[1]))
    counted = bool(parts) and parts[0].isdecimal()
    count, swaps = int(parts[0]) if counted else 0, parts[counted:]
    inputs, written = (_number(part, swaps) for part in (INPUTS, WRITTEN))
    if (inputs or written) and head in strategy_names():
        swaps = swaps[1:]
        known = 0 < count <= MAX_EXAMPLES or not counted
        sound = known and _takes(head, swaps, count) and NO_DESCRIPTION not in swaps
    else:
        sound = _takes(head, swaps, count) and _counts(head, counted, count, in_full, bool(swaps))
        # The examples stand below the description.
        sound &= not (head == MultiTask.name and count and not in_full and NO_DESCRIPTION in swaps)
    if not sound:
        more = [f"{DEFAULT_STRATEGY}:{s}" for s in ("5", *DESCRIPTION_SWAPS)]
        more += [f"{DEFAULT_STRATEGY}:5:{s}" for s in EXAMPLES_SWAPS]
        more += [f"{REFINE}{Fresh.name}:5", f"{DEFAULT_STRATEGY}:{INPUTS}64"]
        more += [f"{DEFAULT_STRATEGY}:{WRITTEN}64"]
        more += [f"icm-lora:{ENSEMBLE}:4"]
        names = ", ".join([*_WITHOUT_SUFFIX, *strategy_names(), *more])
        raise UnknownName(f"unknown method '{name}'; known: {names}")
    suffix = swaps[0] if swaps else ""
    return Method(name, head, suffix, count, in_full, inputs=inputs, written=written)


def _number(prefix: str, swaps: Sequence[str]) -> int:
    """The number after a prefix in the first of them; 0 if there is none, or out of range."""
    part = swaps[0] if swaps else ""
    number = part.removeprefix(prefix)
    stated = number != part and number.isdecimal() and int(number) <= MAX_INPUTS
    return int(number) if stated else 0


def _takes(head: str, swaps: Sequence[str], count: int) -> bool:
    """Whether these can be swapped for it: one at most, what is not there least of all."""
    known = (*DESCRIPTION_SWAPS, *(EXAMPLES_SWAPS if count else ()))
    plain = head in (IN_CONTEXT, Fresh.name)
    return not swaps or (len(swaps) == 1 and swaps[0] in known and not plain)


def _counts(head: str, counted: bool, count: int, in_full: bool, swapped: bool) -> bool:
    """Whether it can go by so many examples, or by none."""
    if counted and count == 0:  # of a curve over numbers of rows: the start itself
        return in_full and not swapped and head in strategy_names() and head != Fresh.name
    if head == IN_CONTEXT:
        return counted and count <= MAX_EXAMPLES and not in_full
    if head not in strategy_names() or count > MAX_EXAMPLES:
        return False
    return counted or not (in_full or head == Fresh.name)


@dataclass(frozen=True)
class Asked:
    """What a method is asked for.

    Attributes:
        texts: a description for each task; None: none, and no adapter unless the method is
            without.
        mode: the prompt that the adapters are for.
        seed: of the train rows that serve as examples; 0 takes the first.
        lenders: for each task the index of the one whose rows those are; None: none. By default
            its own.
    """

    method: Method
    texts: Sequence[str | None]
    mode: UsageMode = "best"
    seed: int = 0
    lenders: Sequence[int | None] | None = None

    def described(self, index: int) -> bool:
        """Whether a task has the description that the method goes by, if it goes by any."""
        return self.texts[index] is not None or self.method.suffix == NO_DESCRIPTION

    def rows(self, index: int, tasks: Sequence[Task]) -> tuple[Example, ...]:
        """A task's examples, its own or another's."""
        lender = index if self.lenders is None else self.lenders[index]
        count = self.method.examples
        return () if lender is None else _examples(tasks[lender], count, self.seed)

    def inputs(self, task: Task) -> tuple[str, ...]:
        """A task's inputs that come without answers: of train and tune rows, but the examples."""
        known = {row.input for row in _examples(task, self.method.examples, self.seed)}
        texts = dict.fromkeys(row.input for row in (*task.train, *task.tune))
        rest = [text for text in texts if text.strip() and text not in known]
        if self.seed:
            random.Random(f"{self.seed}/{task.name}/inputs").shuffle(rest)
        return tuple(rest[: self.method.inputs])


def proposals(
    engine: Engine, asked: Asked, base: BaseReference, tasks: Sequence[Task]
) -> list[Proposal | None]:
    """A strategy's adapters for tasks, made from or trained on as many train rows as it says.

    A task's own adapter is not retrieved. None where there is no text, or no example; a refused
    description gets an adapter that changes nothing, as its user would have none.
    Raises TaskFileError for a text that cannot be a description, UsageError for more examples than
    a generator reads, else as `Engine.propose` does.
    """
    trains = _trains(engine, asked.method)
    # 1. What each task starts from.
    queries: dict[int, Query] = {}
    for index, (task, text) in enumerate(zip(tasks, asked.texts, strict=True)):
        rows = asked.rows(index, tasks)
        inputs = asked.inputs(task)
        lacks = (asked.method.examples and not rows) or (asked.method.inputs and not inputs)
        if lacks or not asked.described(index):
            continue
        request = _request(asked, text, rows, inputs, trains)
        queries[index] = Query(request, base, engine.resources, task.name)
    proposed: dict[int, Proposal] = {
        index: _started(engine, asked.method.head, query) for index, query in queries.items()
    }
    # 2. Those of one layout are trained together.
    if trains:
        for layout in dict.fromkeys(p.adapter.layout.digest for p in proposed.values()):
            group = [i for i, p in proposed.items() if p.adapter.layout.digest == layout]
            refined = engine.refined([queries[i] for i in group], [proposed[i] for i in group])
            proposed |= zip(group, refined, strict=True)
    return [proposed.get(index) for index in range(len(tasks))]


def _trains(engine: Engine, method: Method) -> bool:
    """Whether a method's adapters are trained. Raises UsageError for too many examples."""
    if method.inputs or method.written:
        return True
    reads = method.head != DEFAULT_STRATEGY and engine.uses_examples(method.head)
    if method.in_full or not reads or not method.examples:
        return method.examples > 0
    if method.head == MultiTask.name and method.examples > SHOWN:
        raise UsageError(f"{method.name}: a prompt of {method.head} shows {SHOWN} examples")
    loaded = engine.generated.get(method.head)
    if loaded is None:
        return False
    most = task_vectors.SHOTS if "task" in loaded.module.needs else loaded.module.max_examples
    if 0 < most < method.examples:
        raise UsageError(f"{method.name}: this {method.head} checkpoint reads {most} examples")
    return False


def _started(engine: Engine, name: str, query: Query) -> Proposal:
    """What a strategy proposes before any training; nothing changed where it refuses."""
    try:
        return engine.start(name, query)
    except NothingNear as refusal:
        strategy = engine.strategy(name)
        offer = strategy.offer(query.base)
        if offer is None:
            raise
        chosen = Chosen(name, str(refusal), query.neighbours)
        return Proposal(zeros(offer.layout), chosen, strategy.usage(query.request))


def _examples(task: Task, count: int, seed: int) -> tuple[Example, ...]:
    """Train rows: the first for seed 0, a sample for any other. One answer to an input."""
    by_input: dict[str, Example] = {}
    for row in task.train:
        if row.output.strip():
            by_input.setdefault(row.input, row)
    rows = list(by_input.values())
    if seed:
        random.Random(f"{seed}/{task.name}/examples").shuffle(rows)
    return tuple(rows[:count])


def _request(
    asked: Asked,
    text: str | None,
    rows: tuple[Example, ...],
    inputs: tuple[str, ...],
    trains: bool,
) -> Request:
    # A prompt would have to hold the text, and inputs make an adapter for bare prompts.
    taught = bool(inputs or asked.method.written)
    mode = asked.mode if text is not None and not taught else "bare"
    if asked.method.head == MultiTask.name and not trains and mode == "bare":
        mode = "prompted"  # its weights are the same, and bare prompts show what they lack
    try:
        return Request(
            text,
            seed=asked.seed,
            examples=rows,
            refine=None if trains else 0,
            mode=mode,
            inputs=inputs,
            write_inputs=asked.method.written,
        )
    except InvalidDescription as error:
        raise TaskFileError(f"a task cannot be evaluated: {error}") from error
