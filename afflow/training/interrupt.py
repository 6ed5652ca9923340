"""Ctrl-C as a request to stop at a safe point, not as an exception."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Interrupt:
    """A record of whether Ctrl-C was pressed."""

    pressed: bool = False


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Record the first SIGINT within the block; a second SIGINT interrupts as usual."""
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt  # only the main thread may handle signals
        return

    def note(number, frame):
        interrupt.pressed = True
        signal.signal(number, before)

    before = signal.getsignal(signal.SIGINT) or signal.default_int_handler
    signal.signal(signal.SIGINT, note)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)
