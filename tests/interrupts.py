"""Signals for processes that tests start."""

import signal


def heed_signals() -> None:
    """As `preexec_fn`: tests may run in the background or under nohup, where both are ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
