"""Ctrl-C: the first is held back, the second is not."""

import contextvars
import signal
import threading

import pytest

from sdegen.core.interrupt import DeferredInterrupt


def press():
    signal.raise_signal(signal.SIGINT)


def test_the_first_is_held_and_seen_by_the_loop():
    with DeferredInterrupt() as interrupt:
        assert not interrupt.pending
        press()
        assert interrupt.pending


def test_the_second_leaves_at_once():
    with DeferredInterrupt() as interrupt:
        press()
        with pytest.raises(KeyboardInterrupt):
            press()
        assert interrupt.pending


def test_what_torchrun_sends_on_is_no_second_one(monkeypatch):
    now = [100.0]
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setattr("sdegen.core.interrupt.time.monotonic", lambda: now[0])
    with DeferredInterrupt() as interrupt:
        press()
        now[0] += 0.1
        press()
        assert interrupt.pending
        now[0] += 1.0
        with pytest.raises(KeyboardInterrupt):
            press()


def test_afterwards_one_is_enough():
    with DeferredInterrupt():
        pass
    with pytest.raises(KeyboardInterrupt):
        press()


def test_the_handler_is_given_back_after_an_error():
    with pytest.raises(ZeroDivisionError), DeferredInterrupt():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_somebody_else_stays():
    heard = []
    mine = signal.signal(signal.SIGINT, lambda *_: heard.append(1))
    try:
        with DeferredInterrupt() as interrupt:
            press()
            assert not interrupt.pending
    finally:
        signal.signal(signal.SIGINT, mine)
    assert heard == [1]


def test_what_is_held_further_out_is_seen_further_in_and_on_other_threads():
    seen = {}

    def work(name):
        with DeferredInterrupt() as inner:
            seen[name] = [inner.pending]
            go_on.wait()
            seen[name].append(inner.pending)

    go_on = threading.Event()
    with DeferredInterrupt() as outer:
        context = contextvars.copy_context()
        threads = [
            threading.Thread(target=context.run, args=(work, "inside")),
            threading.Thread(target=contextvars.Context().run, args=(work, "elsewhere")),
        ]
        for thread in threads:
            thread.start()
        while len(seen) < 2:
            pass
        with DeferredInterrupt() as inner:
            assert not inner.pending
            press()
            assert inner.pending
            assert outer.pending
        go_on.set()
        for thread in threads:
            thread.join()
    assert seen == {"inside": [False, True], "elsewhere": [False, False]}
    with DeferredInterrupt() as later:
        assert not later.pending


def test_stopping_the_inner_does_not_stop_the_outer():
    with DeferredInterrupt() as outer, DeferredInterrupt() as inner:
        inner.stop()
        assert inner.pending
        assert not outer.pending


def test_outside_the_main_thread_it_does_nothing():
    seen = []

    def work():
        with DeferredInterrupt() as interrupt:
            seen.append((interrupt.pending, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, signal.default_int_handler)]
