"""Ctrl-C in a long run: the step ends, what is done is saved, and only then the run stops.

A second one leaves at once.
"""

import signal
import threading
from types import FrameType, TracebackType
from typing import Self

__all__ = ["HeldInterrupt"]


class HeldInterrupt:
    """Holds a first Ctrl-C back while in its `with` block; the loop inside looks between steps.

    Outside the main thread, where Python delivers no signals, it does nothing.

    >>> with HeldInterrupt() as interrupt:
    ...     interrupt.pending
    False
    """

    def __init__(self) -> None:
        self.pending = False
        self._previous: object = None
        self._held = False

    def __enter__(self) -> Self:
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

    def _hold(self, number: int, frame: FrameType | None) -> None:
        self.pending = True
        signal.signal(signal.SIGINT, signal.default_int_handler)  # the second one leaves at once
