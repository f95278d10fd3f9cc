"""Shared by all commands: exit codes, errors of one sentence, progress.

Exit 0: done. 2: the command line alone is wrong. 1: found out later. 130: Ctrl-C. No traceback
without --debug.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from library.errors import LorasmithError


def guarded(run: Callable[[], int | None], *, debug: bool = False) -> int:
    """Run a command; print an error as one sentence on stderr; return the exit code."""
    try:
        result = run()
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except Exception as error:
        if debug:
            raise
        return _fail(*_explain(error))
    if result == 130:  # typer turns Ctrl-C into this, without a word
        return _fail("interrupted", 130)
    return result if isinstance(result, int) else 0


def _explain(error: Exception) -> tuple[str, int]:
    if isinstance(error, LorasmithError):
        return str(error), error.exit_code
    # Typer carries its own copy of click's exceptions; their messages can be several lines long.
    message = getattr(error, "format_message", None)
    if message is not None:
        return " ".join(message().replace(": Value error, ", ": ").split()).rstrip("."), 2
    if type(error).__name__ == "Abort":
        return "interrupted", 130
    if isinstance(error, OSError):
        return f"{error.filename or 'a file'}: {error.strerror or error}", 1
    first = (str(error).strip().splitlines() or ["no message"])[0]
    return f"unexpected {type(error).__name__}: {first} (--debug shows where)", 1


def _fail(message: str, code: int) -> int:
    print(f"lorasmith: {message}", file=sys.stderr)
    return code


@contextmanager
def progress_bar(label: str, unit: str = "cell") -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr after two seconds of work; yields a function of (done, total)."""
    from tqdm import tqdm

    with ExitStack() as stack:
        bars: list[tqdm[Any]] = []  # none until there is something to count

        def advance(done: int, total: int) -> None:
            if not bars:
                bar = tqdm(desc=label, file=sys.stderr, unit=unit, dynamic_ncols=True, delay=2)
                bars.append(stack.enter_context(bar))
            bars[0].total = total
            bars[0].update(done - bars[0].n)

        yield advance
