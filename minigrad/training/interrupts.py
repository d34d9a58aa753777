"""Ctrl-C while a training works: noted, and answered when the work at hand is whole."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

__all__ = ["interrupts"]


@contextlib.contextmanager
def interrupts() -> Iterator[list[int]]:
    """A list that the first Ctrl-C fills, so that a step is never broken off; the second one is a
    KeyboardInterrupt."""
    stop: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield stop  # Python delivers signals to the main thread alone
        return
    before = signal.getsignal(signal.SIGINT) or signal.default_int_handler
    if before is signal.SIG_IGN:
        yield stop  # started by nohup, for example: to be left alone
        return

    def note(number: int, _: Any) -> None:
        stop.append(number)
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, note)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
