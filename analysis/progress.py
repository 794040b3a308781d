"""What a command is doing, for whoever waits for it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

_PATIENCE = 5.0
"""Seconds after which a command that writes to no terminal says what it does."""


@contextmanager
def progress(step: str) -> Iterator[Callable[[str], None]]:
    """Name the current step on standard error.

    A terminal shows it in one line, which disappears at the end. Elsewhere each step is a line, but
    only if the command takes long.

    Args:
        step: the first one.

    Yields:
        A function to call with the name of each further step as it begins.
    """
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    begun = time.monotonic()
    with console.status(f"{step} ...") as status:

        def begin(step: str) -> None:
            status.update(f"{step} ...")
            if not console.is_terminal and time.monotonic() - begun > _PATIENCE:
                console.print(f"{step} ...", soft_wrap=True)

        yield begin
