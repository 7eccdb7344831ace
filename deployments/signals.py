"""Signals as exceptions, so that every way to stop runs the same clean-up."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopSignal(BaseException):
    """A signal asked the process to stop. Like KeyboardInterrupt, no handler of ordinary errors swallows it."""


@contextmanager
def stop_signals() -> Iterator[None]:
    """Raise StopSignal on SIGINT, SIGTERM and SIGHUP.

    SIGINT also where a shell started us in the background and had it ignored; SIGHUP not under nohup. A process
    started meanwhile gets the system's defaults back, as exec resets what is handled (not what is ignored).
    """
    wanted = [n for n in _STOPPING if n is not signal.SIGHUP or signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, _raise) for number in wanted}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def only_interrupt() -> None:
    """From now on only Ctrl-C interrupts: the stop has begun, and `down` may not turn it into a kill."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Finish the last of the clean-up even if Ctrl-C is pressed again."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _raise(number: int, _frame: FrameType | None) -> NoReturn:
    raise StopSignal(signal.Signals(number).name)
