"""Turns on a model: one thread at a time, in the order in which they came."""

import gc
import threading
import time
import weakref
from collections.abc import Callable

import pytest
from torch import nn

from library.base.turns import Turn, turn


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_who_waits_longest_comes_next_even_before_who_comes_back_at_once() -> None:
    lock, order = Turn(), []

    def take(number: int) -> None:
        with lock:
            order.append(number)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(4)]
    with lock:
        assert not lock.awaited
        for number, thread in enumerate(threads):
            thread.start()
            until(lambda number=number: len(lock._line) == number + 1)
        assert lock.awaited and order == []
    take(9)
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 9] and not lock.awaited


def test_its_holder_may_take_it_again_and_nobody_else_gives_it_back() -> None:
    lock, failures = Turn(), []

    def give_back() -> None:
        assert not lock.mine
        try:
            lock.release()
        except RuntimeError as error:
            failures.append(error)

    with lock, lock:
        other = threading.Thread(target=give_back)
        other.start()
        other.join()
        assert lock.mine and len(failures) == 1
    assert not lock.mine
    with pytest.raises(RuntimeError, match="only who has"):
        lock.release()


def test_who_is_interrupted_while_waiting_does_not_hold_up_the_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lock = Turn()

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(lock._changed, "wait_for", interrupted)
        with pytest.raises(KeyboardInterrupt):
            lock.acquire()
    assert not lock.awaited
    with lock:
        assert lock.mine


def test_a_model_has_one_turn_which_goes_with_it() -> None:
    model, other = nn.Linear(2, 2), nn.Linear(2, 2)
    assert turn(model) is turn(model) and turn(model) is not turn(other)
    gone = weakref.ref(turn(model))
    del model
    gc.collect()
    assert gone() is None
