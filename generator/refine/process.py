"""The same training in a process of its own, for programs that answer requests meanwhile.

Threads of one process take turns in the interpreter, and torch's own wait for one another. A child
of low priority takes what the requests leave. It loads the base for itself and ends with the
training, so its memory is given back.
"""

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any

import torch

from generator.refine.refine import Refined, Start, refine_starts
from library.base.models import BaseReference, load_base
from library.errors import LorasmithError
from library.progress import Progress, no_progress
from library.quiet import quiet_libraries

NICENESS = 10  # beyond this process's: a tenth of its weight, so requests come first
PAUSE = 0.25  # seconds between two looks at whether the training is still wanted
_THE_PARENTS = {signal.SIGINT, signal.SIGTERM}  # it ends its child; Ctrl-C reaches both


class TrainingLost(LorasmithError):
    """The process of a training ended before the training did (killed for memory, say)."""

    code = "training-lost"


def refine_apart(
    base: BaseReference,
    starts: Sequence[Start],
    *,
    steps: int | None = None,
    budget: float | None = None,
    seed: int = 0,
    progress: Progress = no_progress,
) -> list[Refined]:
    """What `refine_starts` gives on a CPU, from a process of one thread; the bytes are the same.

    Args:
        progress: also called every PAUSE seconds with nothing new; what it raises kills the
            process at once.
    Raises:
        TrainingLost: the process was killed by somebody else.
        And as load_base and refine_starts do.
    """
    content = pickle.dumps((base, starts, {"steps": steps, "budget": budget, "seed": seed}))
    with _child() as child:
        done, total = 0, 1
        while True:
            still = partial(progress, done, total)
            answer = _next(child, still)
            if isinstance(answer, list):
                return answer
            if answer is None:
                with _noticing_its_end(still):
                    child.send_bytes(content)
                continue
            done, total = answer
            progress(done, total)


def _next(child: Connection, still: Callable[[], None]) -> Any:
    """The child's next answer, with `still` called until it comes; raises what the child raised."""
    while not child.poll(PAUSE):
        still()
    with _noticing_its_end(still):
        content = child.recv_bytes()
    answer = pickle.loads(content)
    if isinstance(answer, Exception):
        raise answer
    return answer


@contextmanager
def _noticing_its_end(still: Callable[[], None]) -> Iterator[None]:
    """Raises what `still` raises, or else TrainingLost, if there is no child to talk to."""
    try:
        yield
    except (EOFError, OSError) as error:
        still()
        message = "the process that trained it ended early (killed for memory, perhaps)"
        raise TrainingLost(message) from error


@contextmanager
def _child() -> Iterator[Connection]:
    """A connection to a new process, which is killed when the block ends.

    What it trains is sent once it is ready: its start would wait for whatever exceeds the buffer of
    a pipe to be read, for ever if the process ended before.
    """
    context = multiprocessing.get_context("spawn")
    mine, other = context.Pipe()
    process = context.Process(target=_train, args=(other,), name="lorasmith-training")
    resource_tracker.ensure_running()  # its own start would unblock the signals
    with mine:
        with other:
            before = signal.pthread_sigmask(signal.SIG_BLOCK, _THE_PARENTS)  # a child inherits that
            try:
                process.start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        try:
            assert process.pid is not None
            own = os.getpriority(os.PRIO_PROCESS, process.pid)  # an absolute one may be forbidden
            os.setpriority(os.PRIO_PROCESS, process.pid, own + NICENESS)
            yield mine
        finally:
            process.kill()
            process.join()
            process.close()


def _train(parent: Connection) -> None:
    """The child: None when it is ready, steps done and of how many, then results or an error."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    quiet_libraries()

    def send(answer: Any) -> None:
        parent.send_bytes(pickle.dumps(answer))

    send(None)
    try:
        base, starts, options = pickle.loads(parent.recv_bytes())
        model = load_base(base)
        send(refine_starts(model, starts, **options, progress=lambda *steps: send(steps)))
    except Exception as error:
        if not isinstance(error, LorasmithError):
            error.add_note(traceback.format_exc())  # a traceback does not travel
        send(_portable(error))


def _portable(error: Exception) -> Exception:
    """An error, or its words and notes if it is of a kind that pickle cannot carry."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        words = RuntimeError(f"{type(error).__name__}: {error}")
        for note in getattr(error, "__notes__", ()):
            words.add_note(note)
        return words
    return error


def _end_with_parent() -> None:
    """Whoever kills the parent has no more use for this process."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
