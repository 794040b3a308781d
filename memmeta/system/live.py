"""A view on a terminal or in a notebook that is redrawn while work goes on."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table

_REFRESH_SECONDS = 0.5


def is_live(console: Console) -> bool:
    """Whether `live` draws on this console."""
    return not console.quiet and (console.is_terminal or console.is_jupyter)


@contextmanager
def live(console: Console, view: Callable[[], RenderableType]) -> Iterator[None]:
    """Redraw a view twice a second while the block runs. The last view stays.

    Args:
        console: where to draw. Nothing is drawn in a file or a pipe.
        view: makes the view. A thread calls it.
    """
    if not is_live(console):
        yield
    elif console.is_jupyter:
        with _in_notebook(view):
            yield
    else:
        with Live(console=console, get_renderable=view, refresh_per_second=1 / _REFRESH_SECONDS):
            yield


@contextmanager
def _in_notebook(view: Callable[[], RenderableType]) -> Iterator[None]:
    """As `live`. Rich's `Live` needs ipywidgets in notebooks, and leaves nothing in saved ones."""
    from IPython.display import display

    output = display(_output(view()), display_id=True)
    stopped = threading.Event()

    def redraw() -> None:
        while not stopped.wait(_REFRESH_SECONDS):
            output.update(_output(view()))

    thread = threading.Thread(target=redraw, name="live view", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
        output.update(_output(view()))


def _output(view: RenderableType) -> Table:
    """The view as an object that IPython can display."""
    table = Table.grid()
    table.add_row(view)
    return table
