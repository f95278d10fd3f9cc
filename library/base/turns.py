"""Turns on a loaded model: whoever asks it has it alone meanwhile, first come, first served."""

import threading
from collections import deque
from weakref import WeakKeyDictionary

from torch import nn


class Turn:
    """A lock that goes to who has waited longest; its holder may take it again.

    Fair, as who decodes for many comes back at once and would keep all others out.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._line: deque[int] = deque()  # threads that wait
        self._holder: int | None = None
        self._depth = 0

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for it."""
        return bool(self._line)

    @property
    def mine(self) -> bool:
        """Whether this thread has it."""
        return self._holder == threading.get_ident()

    def acquire(self) -> None:
        """Wait for it. Each time has to be followed by a `release`."""
        with self._changed:
            if not self.mine:
                self._wait(threading.get_ident())
            self._depth += 1

    def _wait(self, thread: int) -> None:
        self._line.append(thread)
        try:
            self._changed.wait_for(lambda: self._holder is None and self._line[0] == thread)
            self._holder = thread
        finally:  # also of who was interrupted
            self._line.remove(thread)
            self._changed.notify_all()

    def release(self) -> None:
        """Give it back. Raises RuntimeError if another thread has it."""
        with self._changed:
            if not self.mine:
                raise RuntimeError("only who has the turn can give it back")
            self._depth -= 1
            if not self._depth:
                self._holder = None
                self._changed.notify_all()

    def __enter__(self) -> "Turn":
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


_TURNS: WeakKeyDictionary[nn.Module, Turn] = WeakKeyDictionary()
_ADDING = threading.Lock()


def turn(model: nn.Module) -> Turn:
    """The lock of a model, which whoever asks it holds meanwhile, with adapters or without."""
    with _ADDING:
        return _TURNS.setdefault(model, Turn())
