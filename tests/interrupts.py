"""Ctrl-C for processes that tests start."""

import signal


def heed_ctrl_c() -> None:
    """As `preexec_fn`: what a shell runs in the background, such as tests, ignores it otherwise."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
