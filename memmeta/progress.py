"""Progress of long work: on a terminal, in a notebook, or nowhere."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Annotated, Protocol, runtime_checkable

from pydantic import PlainValidator
from rich.console import Console
from rich.progress import Progress as RichProgress
from rich.text import Text

from memmeta.system.live import live

_BAR_WIDTH = 40


@runtime_checkable
class Progress(Protocol):
    """Shows the progress of a run, or of other long work."""

    def bar(
        self, total: int, done: int, unit: str = "outer steps"
    ) -> AbstractContextManager[Callable[[], None]]:
        """Show a bar during a `with` block. The block gets a function that advances it by 1.

        Args:
            total: number of steps.
            done: steps that were taken earlier.
            unit: the name of the steps.
        """

    def line(self, text: str) -> None:
        """Show a line of text."""


class ConsoleProgress:
    """Prints lines to a Rich console, and draws the bar if it is a terminal."""

    def __init__(self, console: Console) -> None:
        self.console = console

    @contextmanager
    def bar(self, total: int, done: int, unit: str = "outer steps") -> Iterator[Callable[[], None]]:
        """See `Progress.bar`."""
        disable = not self.console.is_terminal
        with RichProgress(console=self.console, transient=True, disable=disable) as progress:
            task = progress.add_task(unit, total=total, completed=done)
            yield lambda: progress.advance(task)

    def line(self, text: str) -> None:
        """See `Progress.line`."""
        self.console.print(text, soft_wrap=True, markup=False)


class NotebookProgress:
    """Shows lines, and a bar below them, in the output of a notebook's cell."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._lines: list[str] | None = None  # those above the bar, while there is one

    @contextmanager
    def bar(self, total: int, done: int, unit: str = "outer steps") -> Iterator[Callable[[], None]]:
        """See `Progress.bar`."""
        lines = self._lines = []
        ended = False

        def view() -> Text:
            return Text("\n".join(lines if ended else [*lines, text_bar(done, total, unit)]))

        def advance() -> None:
            nonlocal done
            done += 1

        with live(self.console, view):
            try:
                yield advance
            finally:
                ended, self._lines = True, None  # the last view is without the bar

    def line(self, text: str) -> None:
        """See `Progress.line`."""
        if self._lines is None:
            self.console.print(text, markup=False)
        else:
            self._lines.append(text)


class NoProgress:
    """Shows nothing."""

    def bar(
        self, total: int, done: int, unit: str = "outer steps"
    ) -> AbstractContextManager[Callable[[], None]]:
        """See `Progress.bar`."""
        del total, done, unit
        return nullcontext(lambda: None)

    def line(self, text: str) -> None:
        """See `Progress.line`."""


def progress_here() -> Progress:
    """The progress display for this process: a notebook's, or lines on stderr."""
    console = Console(stderr=True, highlight=False)
    return NotebookProgress(console) if console.is_jupyter else ConsoleProgress(console)


def _known(value: object) -> object:
    if not isinstance(value, bool | Progress):
        raise ValueError("accepted are True, False and a memmeta.progress.Progress")
    return value


AnyProgress = Annotated[bool | Progress, PlainValidator(_known)]
"""Whether to show progress, or the display, as an argument (see `memmeta.settings.arguments`)."""


def text_bar(done: int, total: int, unit: str = "outer steps") -> str:
    """A bar in characters.

    Examples:
        >>> text_bar(100, 400)
        '━━━━━━━━━━┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄ 100 of 400 outer steps'
    """
    filled = _BAR_WIDTH * done // total
    return f"{'━' * filled}{'┄' * (_BAR_WIDTH - filled)} {done} of {total} {unit}"
