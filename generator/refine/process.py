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

NICENESS = 10  # a tenth of the weight: requests come first, and a busy machine starves nothing
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
    options = {"steps": steps, "budget": budget, "seed": seed}
    with _child(pickle.dumps((base, starts, options))) as answers:
        done, total = 0, 1
        while True:
            answer = _next(answers, partial(progress, done, total))
            if isinstance(answer, list):
                return answer
            done, total = answer
            progress(done, total)


def _next(answers: Connection, still: Callable[[], None]) -> Any:
    """The child's next answer, with `still` called until it comes; raises what the child raised."""
    while not answers.poll(PAUSE):
        still()
    try:
        answer = pickle.loads(answers.recv_bytes())
    except (EOFError, OSError) as error:
        still()
        message = "the process that trained it ended early (killed for memory, perhaps)"
        raise TrainingLost(message) from error
    if isinstance(answer, Exception):
        raise answer
    return answer


@contextmanager
def _child(content: bytes) -> Iterator[Connection]:
    """The answers of a new process; it is killed when the block ends."""
    context = multiprocessing.get_context("spawn")
    answers, sent = context.Pipe(duplex=False)
    process = context.Process(target=_train, args=(sent, content), name="lorasmith-training")
    resource_tracker.ensure_running()  # its own start would unblock the signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _THE_PARENTS)  # a child inherits that
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        sent.close()
    try:
        assert process.pid is not None
        os.setpriority(os.PRIO_PROCESS, process.pid, NICENESS)
        yield answers
    finally:
        process.kill()
        process.join()
        process.close()
        answers.close()


def _train(sent: Connection, content: bytes) -> None:
    """The child: pairs of steps done and of how many, then the results or what was raised."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    quiet_libraries()

    def send(answer: Any) -> None:
        sent.send_bytes(pickle.dumps(answer))

    try:
        base, starts, options = pickle.loads(content)
        model = load_base(base)
        send(refine_starts(model, starts, **options, progress=lambda *steps: send(steps)))
    except Exception as error:
        if not isinstance(error, LorasmithError):
            error.add_note(traceback.format_exc())  # a traceback does not travel
        send(error)


def _end_with_parent() -> None:
    """Whoever kills the parent has no more use for this process."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
