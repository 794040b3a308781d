"""The current step of a command, shown on standard error while it runs."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

_PATIENCE = 5.0
"""Seconds before steps are printed where standard error is not a terminal."""


@contextmanager
def progress(step: str) -> Iterator[Callable[[str], None]]:
    """Show the current step on standard error.

    A terminal shows one line, which disappears at the end. Elsewhere every step is printed on a
    separate line, but only once the command has run for some seconds.

    Args:
        step: name of the first step.

    Yields:
        A function to call with the name of each later step as it begins.
    """
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    started = time.monotonic()
    with console.status(f"{step} ...") as status:

        def begin(step: str) -> None:
            status.update(f"{step} ...")
            if not console.is_terminal and time.monotonic() - started > _PATIENCE:
                console.print(f"{step} ...", soft_wrap=True)

        yield begin
