"""Training in a process of its own: the same results and errors, low priority, and its end."""

import os
import pickle
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from generator.refine.process import NICENESS, TrainingLost, refine_apart
from generator.refine.refine import Start, refine_starts
from library.adapter import Adapter
from library.base.models import BaseReference, load_base, load_config
from library.base.usage import BARE, Usage
from library.errors import BaseModelError, LayoutMismatch, UsageError
from library.layout import layout_of
from library.tasks.files import Example
from library.trainer.optimiser import shared_start

pytestmark = pytest.mark.slow
EXAMPLES = [Example.pair(f"row {i}", "yes" if i % 3 else "no") for i in range(6)]
LONG = 100_000  # steps: nobody waits for them


@pytest.fixture(scope="module")
def starts(base: BaseReference) -> list[Start]:
    adapter = shared_start(layout_of(load_config(base), rank=4), 0)
    return [Start(adapter, EXAMPLES, BARE), Start(adapter, EXAMPLES[:3], BARE)]


def factors(adapter: Adapter) -> list[torch.Tensor]:
    return [*adapter.A.values(), *adapter.B.values()]


def trained_until(base: BaseReference, starts: list[Start], act: Any) -> None:
    """Train without end; `act` gets the child's id once the first step is done."""
    found: set[int] = set()

    def watch(done: int, total: int) -> None:
        if done and not found:
            found.update(tiny.children(b"spawn_main"))
            (child,) = found
            act(child)

    refine_apart(base, starts, steps=LONG, progress=watch)


def test_the_results_are_those_of_training_here(base: BaseReference, starts: list[Start]) -> None:
    seen: list[tuple[int, int]] = []
    apart = refine_apart(base, starts, steps=6, seed=3, progress=lambda *s: seen.append(s))
    here: list[tuple[int, int]] = []
    expected = refine_starts(
        load_base(base), starts, steps=6, seed=3, progress=lambda *s: here.append(s)
    )
    for one, other in zip(apart, expected, strict=True):
        assert one.to_dict() == other.to_dict()
        assert one.trained_in == other.trained_in == "cpu-f32-torch"
        assert one.adapter.layout == other.adapter.layout
        pairs = zip(factors(one.adapter), factors(other.adapter), strict=True)
        assert all(torch.equal(mine, theirs) for mine, theirs in pairs)
    assert list(dict.fromkeys(step for step in seen if step[0])) == here
    assert seen == sorted(seen, key=lambda step: step[0])
    assert tiny.children(b"spawn_main") == set()


def test_its_errors_are_raised_here(
    base: BaseReference, starts: list[Start], tmp_path: Path
) -> None:
    long = [Start(starts[0].adapter, [Example.pair("1 " * 2000, "3")], BARE)]
    with pytest.raises(UsageError, match="no example has at most 1024 tokens"):
        refine_apart(base, long, steps=2)
    with pytest.raises(BaseModelError, match="'none' cannot be read"):
        refine_apart(BaseReference("none", str(tmp_path)), starts, steps=2)
    narrow = Start(tiny.adapter(layout_of(tiny.config("llama", hidden_size=16))), EXAMPLES, BARE)
    with pytest.raises(LayoutMismatch) as caught:
        refine_starts(load_base(base), [narrow], steps=2)
    assert type(pickle.loads(pickle.dumps(caught.value))) is LayoutMismatch  # it would travel


def test_an_accident_says_where_it_was(base: BaseReference, starts: list[Start]) -> None:
    with pytest.raises(ValueError, match="Overflow") as caught:
        refine_apart(base, starts, steps=2, seed=2**70)  # which no torch generator takes
    assert "in refine_starts" in caught.value.__notes__[0]


class Peculiar(Exception):
    """An error that pickle cannot make again."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} and {other}")


class Broken(Usage):
    """A prompt that raises it."""

    def message(self, text: str) -> str:
        raise Peculiar("this", "that")


def test_an_error_that_does_not_travel_is_told_in_its_words(
    base: BaseReference, starts: list[Start]
) -> None:
    broken = Start(starts[0].adapter, EXAMPLES, Broken(BARE.mode, BARE.template))
    with pytest.raises(RuntimeError, match="Peculiar: this and that") as caught:
        refine_apart(base, [broken], steps=2)
    assert "in refine_starts" in caught.value.__notes__[0]


def test_it_leaves_the_processors_to_others_and_signals_to_its_parent(
    base: BaseReference, starts: list[Start]
) -> None:
    before = os.getpriority(os.PRIO_PROCESS, 0)

    class Enough(Exception):
        pass

    def look(child: int) -> None:
        assert os.getpriority(os.PRIO_PROCESS, child) == min(19, before + NICENESS)
        assert os.getpriority(os.PRIO_PROCESS, 0) == before
        os.kill(child, signal.SIGINT)
        os.kill(child, signal.SIGTERM)
        time.sleep(0.2)
        assert tiny.children(b"spawn_main") == {child}
        raise Enough

    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with pytest.raises(Enough):  # what progress raises
        trained_until(base, starts, look)
    assert tiny.children(b"spawn_main") == set()  # it was killed
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask


def test_a_killed_process_is_told_of(base: BaseReference, starts: list[Start]) -> None:
    with pytest.raises(TrainingLost, match="ended early"):
        trained_until(base, starts, lambda child: os.kill(child, signal.SIGKILL))
    assert tiny.children(b"spawn_main") == set()


def test_a_process_that_is_killed_while_it_starts_is_told_of(
    base: BaseReference, starts: list[Start]
) -> None:
    """However much it was to be sent."""
    many = [Example.pair(f"row {i}" * 100, "yes") for i in range(500)]
    assert len(pickle.dumps(many)) > 2**17  # a pipe holds half of that

    def kill() -> None:
        while not (found := tiny.children(b"spawn_main")):
            time.sleep(0.001)
        os.kill(found.pop(), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(TrainingLost, match="ended early"):
        refine_apart(base, [Start(starts[0].adapter, many, BARE)], steps=LONG)
    killer.join()
    assert tiny.children(b"spawn_main") == set()


ENDLESS = """
import os, sys, tiny
os.nice(5)
from generator.refine.process import refine_apart
from generator.refine.refine import Start
from library.base.models import load_config, resolve_base
from library.base.usage import BARE
from library.layout import layout_of
from library.tasks.files import Example
from library.trainer.optimiser import shared_start
base = resolve_base(sys.argv[1])
start = shared_start(layout_of(load_config(base), rank=4), 0)
def watch(done, total):
    if done == 1:
        print(*tiny.children(b"spawn_main"), flush=True)
refine_apart(base, [Start(start, [Example.pair("a", "b")], BARE)], steps=100_000, progress=watch)
"""


def test_it_is_below_its_parent_and_ends_when_that_is_killed(tiny_base: Path) -> None:
    parent = tiny.start_python(ENDLESS, str(tiny_base))
    assert parent.stdout is not None
    child = Path("/proc") / parent.stdout.readline().strip()
    own, parents = (os.getpriority(os.PRIO_PROCESS, i) for i in (int(child.name), parent.pid))
    assert own == min(19, parents + NICENESS)
    assert b"spawn_main" in (child / "cmdline").read_bytes()
    parent.kill()
    parent.wait()
    end = time.monotonic() + 20
    while child.exists() and (child / "cmdline").read_bytes():  # empty: ended, not yet reaped
        assert time.monotonic() < end
        time.sleep(0.05)
