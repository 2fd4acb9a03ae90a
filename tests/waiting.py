"""Waiting for processes: for what they do, and never until a time that a busy machine may miss."""

import time

HANG = 1200.0  # seconds; no deadline: what hangs for ever is told at some time


def wait_for(done, process):
    """Waits until `done()`, or until a process that was to do it has ended."""
    begun = time.monotonic()
    while not done():
        assert process.poll() is None or done(), process.communicate()
        assert time.monotonic() - begun < HANG, "it hangs"
        time.sleep(0.01)
