"""Ctrl-C: the first is held back, the second is not."""

import signal
import threading

import pytest

from sdegen.interrupt import HeldInterrupt


def press():
    signal.raise_signal(signal.SIGINT)


def test_the_first_is_held_and_seen_by_the_loop():
    with HeldInterrupt() as interrupt:
        assert not interrupt.pending
        press()
        assert interrupt.pending


def test_the_second_leaves_at_once():
    with HeldInterrupt() as interrupt:
        press()
        with pytest.raises(KeyboardInterrupt):
            press()
        assert interrupt.pending


def test_afterwards_one_is_enough():
    with HeldInterrupt():
        pass
    with pytest.raises(KeyboardInterrupt):
        press()


def test_the_handler_is_given_back_after_an_error():
    with pytest.raises(ZeroDivisionError), HeldInterrupt():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_somebody_else_stays():
    heard = []
    mine = signal.signal(signal.SIGINT, lambda *_: heard.append(1))
    try:
        with HeldInterrupt() as interrupt:
            press()
            assert not interrupt.pending
    finally:
        signal.signal(signal.SIGINT, mine)
    assert heard == [1]


def test_outside_the_main_thread_it_does_nothing():
    seen = []

    def work():
        with HeldInterrupt() as interrupt:
            seen.append((interrupt.pending, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, signal.default_int_handler)]
