"""Ctrl-C in a long run: the step ends, what is done is saved, and only then the run stops.

A second one leaves at once.

A run may hold it around its blocks, and each block around its steps, on other threads too: what
is held further out is seen further in, so that one Ctrl-C stops all of them after their step.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar, Token
from types import FrameType, TracebackType
from typing import Self

# torchrun sends a Ctrl-C on to its processes, which the terminal has told of it already
_TORCHRUN, _ECHO = "TORCHELASTIC_RUN_ID", 1.0  # seconds

# a context is inherited by a thread that is started in a copy of it, and by no other
_around: ContextVar[DeferredInterrupt | None] = ContextVar("_around", default=None)


class DeferredInterrupt:
    """Holds a first Ctrl-C back while in its `with` block; the loop inside looks between steps.

    Inside the `with` block of another it sees what that one holds. Outside the main thread, where
    Python delivers no signals, it holds none by itself.

    >>> with DeferredInterrupt() as interrupt:
    ...     interrupt.pending
    False
    """

    def __init__(self) -> None:
        self._stop = False
        self._since = 0.0
        self._held = False
        self._outer: DeferredInterrupt | None = None
        self._token: Token[DeferredInterrupt | None] | None = None

    @property
    def pending(self) -> bool:
        """Whether what is inside must end after the step that it is in."""
        return self._stop or (self._outer is not None and self._outer.pending)

    def pending_fn(self) -> Callable[[], bool]:
        """Return `pending` as a function, for a loop where every tenth of a microsecond counts."""
        chain = [self]
        while (outer := chain[-1]._outer) is not None:
            chain.append(outer)
        if len(chain) == 1:
            return lambda: self._stop
        if len(chain) == 2:
            return lambda: self._stop or chain[1]._stop
        return lambda: any(one._stop for one in chain)

    def stop(self) -> None:
        """Make a stop pending without a Ctrl-C, so that other blocks end where one has failed."""
        self._stop = True

    def __enter__(self) -> Self:
        self._outer = _around.get()
        self._token = _around.set(self)
        # a handler that is not Python's own default is somebody's wish: leave it
        if (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        ):
            signal.signal(signal.SIGINT, self._hold)
            self._held = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._held:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._token is not None:
            _around.reset(self._token)

    def _hold(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self._stop:
            self._stop, self._since = True, now
        if _TORCHRUN not in os.environ:
            # the second one leaves at once
            signal.signal(signal.SIGINT, signal.default_int_handler)
        elif now - self._since > _ECHO:
            signal.default_int_handler(number, frame)


def is_interrupted() -> bool:
    """Return whether a Ctrl-C waits for what runs within a `DeferredInterrupt` to end its step."""
    around = _around.get()
    return around is not None and around.pending
