"""Signals that ask a process to stop: Ctrl-C, SIGTERM of a scheduler, SIGHUP of a closed terminal.

They raise KeyboardInterrupt, whichever it was: the one exception for it that libraries let through.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "SIGHUP"}
"""Signals that are heeded, and how they are called where a process says what stopped it."""

GRACE = 10
"""Seconds in which work that can be saved has to come to a point where it can."""


class Stop:
    """Whether this process was asked to stop, and by what.

    Attributes:
        number: of the signal; None: it was not asked.
        postponed: seconds that it has to come to where it can stop; 0: it is interrupted at once.
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
        """As shells have it: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP."""
        return 128 + (self.number or signal.SIGINT)

    @property
    def by(self) -> str:
        """What asked."""
        return _NAMES[signal.Signals(self.number or signal.SIGINT)]


STOP = Stop()
"""Of this process."""


def heed_signals() -> None:
    """Have the signals end this process in good order, except those that it was started to ignore.

    To be called again after a library has set handlers of its own. Not for other threads than the
    main one.
    """
    for number in _NAMES:
        # What `nohup` runs ignores SIGHUP, and what a script runs in the background Ctrl-C.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)


@contextmanager
def postponed(grace: int = GRACE) -> Iterator[Stop]:
    """Leave it to the block to stop where it can, when `Stop.requested`.

    A second signal interrupts it at once, and so does the end of `grace` seconds, in a process
    that has called `heed_signals`.
    """
    STOP.postponed = grace
    try:
        yield STOP
    finally:
        STOP.postponed = 0
        if STOP.requested:
            signal.alarm(0)


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
