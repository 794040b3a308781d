"""Signals that ask a process to stop: Ctrl-C, SIGTERM of a scheduler, SIGHUP of a closed terminal.

All of them raise KeyboardInterrupt, since libraries let this exception through.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "SIGHUP"}
"""The handled signals, and their names in messages."""

GRACE = 10
"""Seconds that work has to reach a point where it can be saved."""


class Stop:
    """Whether this process was asked to stop, and by which signal.

    Attributes:
        number: the signal's number; None if there was none.
        postponed: seconds that the process has to reach a point where it can stop; 0: a signal
            interrupts it at once.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.postponed = 0

    @property
    def requested(self) -> bool:
        """Whether the process was asked to stop."""
        return self.number is not None

    @property
    def exit_code(self) -> int:
        """The shell convention: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP."""
        return 128 + (self.number or signal.SIGINT)

    @property
    def by(self) -> str:
        """The name of the signal."""
        return _NAMES[signal.Signals(self.number or signal.SIGINT)]


STOP = Stop()
"""The state of this process."""


def heed_signals() -> None:
    """Install handlers, except for signals that this process was started to ignore.

    Call it again after a library has set its own handlers. In a thread other than the main thread
    it does nothing, since Python does not allow handlers there.
    """
    if not _in_main_thread():
        return
    for number in _NAMES:
        # `nohup` makes a process ignore SIGHUP. Background jobs of a script ignore Ctrl-C.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)


@contextmanager
def heeding_signals() -> Iterator[None]:
    """Handle signals in the block, and restore the handlers after it.

    If a signal has stopped the block, it is sent again to the restored handler. So SIGTERM ends a
    program that has no handler of its own.

    Raises:
        KeyboardInterrupt: a signal has stopped the block.
    """
    if not _in_main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (*_NAMES, signal.SIGALRM)}
    heed_signals()
    try:
        yield
    except KeyboardInterrupt:
        if not STOP.requested:
            raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        stopped_by, STOP.number = STOP.number, None
    if stopped_by is not None:
        signal.raise_signal(stopped_by)
        raise KeyboardInterrupt


@contextmanager
def postponed(grace: int = GRACE) -> Iterator[Stop]:
    """Let the block stop at a suitable point instead of interrupting it.

    The block has to look at `Stop.requested`. A second signal, or the end of `grace` seconds,
    interrupts it. It needs the handlers of `heed_signals` or `heeding_signals`.
    """
    STOP.postponed = grace
    try:
        yield STOP
    finally:
        STOP.postponed = 0
        if STOP.requested:
            signal.alarm(0)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _stop(number: int, frame: FrameType | None) -> None:
    del frame
    again = STOP.requested
    STOP.number = STOP.number or number
    if again or not STOP.postponed:
        raise KeyboardInterrupt
    signal.signal(signal.SIGALRM, _out_of_time)
    signal.alarm(STOP.postponed)


def _out_of_time(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise KeyboardInterrupt
