"""Tables that are split to fit the width of the terminal."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

_UNLIMITED = 10_000


@dataclass(frozen=True)
class Column:
    """One column of a table, as printed."""

    heading: str
    """Heading, possibly of several lines."""
    cells: list[str]
    """One cell per row."""
    justify: Literal["left", "right"] = "right"
    """Side to which the cells and the heading are aligned."""


def tables(console: Console, naming: list[Column], columns: list[Column]) -> Iterator[Table]:
    """One table, or several to be printed below each other if the console is too narrow.

    Cells are never cut or wrapped.

    Args:
        console: where the tables will be printed.
        naming: columns that identify a row, repeated in every table.
        columns: all other columns.
    """
    spacious = _table([*naming, *columns], gap=1)
    if _fits(console, spacious):
        yield spacious
        return
    block: list[Column] = []
    for column in columns:
        if block and not _fits(console, _table([*naming, *block, column])):
            yield _table([*naming, *block])
            block = []
        block.append(column)
    yield _table([*naming, *block])


def _fits(console: Console, table: Table) -> bool:
    unlimited = console.options.update(width=_UNLIMITED)
    return Measurement.get(console, unlimited, table).maximum <= console.width


def _table(columns: list[Column], gap: int = 0) -> Table:
    """A table with `gap` extra spaces between its columns."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, gap, 0, 0), show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(column.heading, justify=column.justify, no_wrap=True, vertical="bottom")
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*cells)
    return table
