"""Ctrl-C as a wish to stop, not as an exception in the middle of something."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Interrupt:
    """Whether Ctrl-C was pressed."""

    pressed: bool = False


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Note the first SIGINT within the block; a second one interrupts as usual."""
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
