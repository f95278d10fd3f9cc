"""Progress on stderr, and silence where libraries would chatter."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr; call what it yields with (done, total)."""
    import sys

    from tqdm import tqdm

    with tqdm(desc=label, file=sys.stderr, unit="cell", dynamic_ncols=True) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield advance


def quiet_libraries() -> None:
    """No progress bars and no advice from transformers; errors still show."""
    import warnings

    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)
