"""Prompts completed token by token for whoever follows them, those of one base together.

Every answer is a row of its own: its adapter or none, its way of choosing tokens. Who asks while
others are answered joins them before their next token, and who has ended leaves (scheduling by
iteration: Yu et al. 2022, "Orca"). A prompt is read alone, so a first token is the one that it has
alone; a further one is too, but for what rounding in a batch of another shape changes. An answer
with hooks of its own, as a gate's, is a batch by itself.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from queue import SimpleQueue
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn

from library.adapter import Adapter
from library.base.cached_rows import CachedRows
from library.base.completion import Chooser, Decoding, Token
from library.base.decode import eos_ids
from library.base.models import BaseModel
from library.base.multi_adapter import adapted_each
from library.base.turns import Turn, turn

MOST_ROWS = 8  # answers in one batch
MOST_TOKENS = 8192  # of its prompts and answers at their longest, with padding

# Opens hooks on a model, in place of one adapter's; what they keep of a row lies in its cache.
Hooks = Callable[[nn.Module], AbstractContextManager[object]]


def complete(
    base: BaseModel,
    prompt: Sequence[int],
    adapter: Adapter | Hooks | None,
    decoding: Decoding,
    follow: Callable[[Token], bool],
) -> None:
    """Complete a prompt, up to and with the end of sequence.

    What other threads complete on the same base meanwhile is decoded in the same batch.

    Args:
        base: the loaded base model.
        prompt: token ids, at least one.
        adapter: one adapter (n = 1), or hooks, under which it is decoded alone; None for the base.
        decoding: how tokens are chosen.
        follow: takes every token, in this thread; False, or an error, ends the answer.
    Raises:
        LayoutMismatch: the adapter is not for this base.
        ValueError: this thread has the model's turn already.
    """
    if turn(base.model).mine:
        raise ValueError("this thread has the model's turn, for which its answer would wait")
    row = CompletionRow(base, prompt, adapter, decoding)
    _line(base.model).enter(base, row)
    try:
        for token in row:
            if not follow(token):
                return
    finally:
        row.left = True


class CompletionRow:
    """One answer in the making. Its batch adds tokens; who asked for it iterates over them.

    Attributes:
        ids: the prompt and the answer so far.
        longest: the most tokens that `ids` may get.
        left: whether who asked wants no more of them, and has said so by setting it.
    """

    def __init__(
        self,
        base: BaseModel,
        prompt: Sequence[int],
        adapter: Adapter | Hooks | None,
        decoding: Decoding,
    ) -> None:
        self.adapter = adapter if isinstance(adapter, Adapter) else None
        self.hooks = None if isinstance(adapter, Adapter) else adapter
        self.ids, self.left = list(prompt), False
        self.longest = len(prompt) + decoding.longest
        self._start, self._ends = len(prompt), eos_ids(base)
        self._chooser = Chooser(decoding, base.device)
        self._given: SimpleQueue[Token | Exception | None] = SimpleQueue()
        self._complete = False

    def __iter__(self) -> Iterator[Token]:
        """The tokens, each as soon as there is one. Raises what ended the answer."""
        while isinstance(given := self._given.get(), Token):
            yield given
        if given is not None:
            raise given

    @property
    def over(self) -> bool:
        """Whether it needs no more tokens."""
        return self._complete or self.left

    def take(self, logits: Float[Tensor, "1 vocabulary"]) -> None:
        """Choose the next token."""
        token = self._chooser.next(logits, len(self.ids) - self._start)
        self.ids.append(token.id)
        self._complete = token.id in self._ends or len(self.ids) == self.longest
        self._given.put(token)

    def end(self, error: Exception | None = None) -> None:
        """Say that there are no more tokens, and why if that is an error."""
        self.left = True
        self._given.put(error)


class CompletionBatch:
    """Rows that are decoded together, by who has the model's turn."""

    def __init__(self, base: BaseModel) -> None:
        self._base = base
        self._rows: list[CompletionRow] = []
        self._cached = CachedRows(base.model)

    def takes(self, row: CompletionRow) -> bool:
        """Whether there is room for a row; always for the first."""
        rows = [*self._rows, row]
        tokens = len(rows) * max(row.longest for row in rows)
        fits = len(rows) <= MOST_ROWS and tokens <= MOST_TOKENS
        joint = not any(row.hooks for row in rows)
        return not self._rows or (fits and joint and self._cached.growing)

    def join(self, row: CompletionRow) -> None:
        """Read the prompt of a row and choose its first token. What goes wrong is its own."""
        cached = CachedRows(self._base.model)
        try:
            if not row.over:
                with self._hooked([row]):
                    logits = cached.forward(torch.tensor([row.ids], device=self._base.device))
                row.take(logits)
        except Exception as error:
            return row.end(error)
        if row.over:
            return row.end()
        self._rows.append(row)
        if len(self._rows) == 1:
            self._cached = cached
        else:
            self._cached.add(cached)

    def going(self) -> bool:
        """Let rows go that are over; whether there are others."""
        over = [row.over for row in self._rows]
        if any(over) and not all(over):
            stay = [i for i, ended in enumerate(over) if not ended]
            self._cached.keep(torch.tensor(stay, device=self._base.device))
            self._cached.trim()
        rows, self._rows = self._rows, []
        for row, ended in zip(rows, over, strict=True):
            if ended:
                row.end()
            else:
                self._rows.append(row)
        return bool(self._rows)

    def decode(self, until: Callable[[], bool]) -> None:
        """A token for every row, and so on until one of them is over or `until` is true."""
        with self._hooked(self._rows):
            while True:
                last = [[row.ids[-1]] for row in self._rows]
                logits = self._cached.forward(torch.tensor(last, device=self._base.device))
                for row, own in zip(self._rows, logits.split(1), strict=True):
                    try:
                        row.take(own)
                    except Exception as error:
                        row.end(error)
                if until() or any(row.over for row in self._rows):
                    return

    def _hooked(self, rows: Sequence[CompletionRow]) -> AbstractContextManager[object]:
        hooks = rows[0].hooks
        if hooks is not None:
            return hooks(self._base.model)
        return adapted_each(self._base.model, [row.adapter for row in rows])

    def fail(self, error: Exception) -> None:
        """End all rows by an error."""
        for row in self._rows:
            row.end(error)


class _Line:
    """Rows that wait for one model, and the thread that answers while there are any."""

    def __init__(self) -> None:
        self._waiting: deque[CompletionRow] = deque()
        self._changing = threading.Lock()
        self._answering = False

    def enter(self, base: BaseModel, row: CompletionRow) -> None:
        with self._changing:
            self._waiting.append(row)
            if not self._answering:
                self._answering = True
                threading.Thread(target=self._work, args=(base,), name="completions").start()

    def _work(self, base: BaseModel) -> None:
        while self._goes_on():
            with turn(base.model) as held:
                batch = CompletionBatch(base)
                try:
                    self._answer(batch, held)
                except Exception as error:  # not of one row: of the model, or no memory
                    batch.fail(error)

    def _goes_on(self) -> bool:
        with self._changing:
            self._answering = bool(self._waiting)
            return self._answering

    @torch.inference_mode()
    def _answer(self, batch: CompletionBatch, held: Turn) -> None:
        """Answer who waits; once somebody else waits for the turn, nobody joins any more."""

        def fits() -> bool:
            return bool(self._waiting) and batch.takes(self._waiting[0])

        def joins() -> bool:
            return fits() and not held.awaited

        for _ in range(len(self._waiting)):  # they have waited for the turn as well
            if fits():
                batch.join(self._waiting.popleft())
        while batch.going():
            batch.decode(until=joins)
            while joins():
                batch.join(self._waiting.popleft())


_LINES: WeakKeyDictionary[nn.Module, _Line] = WeakKeyDictionary()
_ADDING = threading.Lock()


def _line(model: nn.Module) -> _Line:
    with _ADDING:
        return _LINES.setdefault(model, _Line())
