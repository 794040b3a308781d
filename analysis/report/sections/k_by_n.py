"""Inner steps by conjugate-gradient iterations, with step sizes re-tuned, for each algorithm."""

from collections.abc import Collection, Iterable, Iterator, Sequence

from analysis.records.trials import Trial
from analysis.report import style
from analysis.report.page import Block, Figure, Gallery, Table, cell, digits, sentence
from analysis.statistics.factorial import STEP_SIZES, Cell, CellsTable, Levels, cells_table
from analysis.statistics.responses import Response

_TOGETHER = len(style.SERIES)
"""Columns of one table at most, and lines of one figure: each has its colour."""


def blocks(trials: Sequence[Trial], response: Response, tuned: Collection[str]) -> Iterable[Block]:
    """K × N for all that else was varied: in one table, or one each if that is too wide.

    Args:
        trials: those of stages grid and tune.
        response: what is in the cells.
        tuned: fields that stage tune has tuned in each of them.
    """
    found = cells_table(trials, response, nuisances=tuple(tuned) or STEP_SIZES)
    if sum(len(table.columns) for table in found) > _TOGETHER:
        yield from (_table(response, [table], tuned) for table in found)
        return
    yield _table(response, found, tuned)
    reached = {
        value
        for table in found
        for value, cells in zip(table.rows, table.cells, strict=True)
        if any(own.mean is not None for own in cells)
    }
    if len(reached) > 1:
        yield Gallery("The same as a figure.", [_lines(response, found)])


def _lines(response: Response, tables: Sequence[CellsTable]) -> Figure:
    data = [
        {
            "setting": heading,
            "inner_steps": value,
            response.name: cells[column].mean,
            "interval": cells[column].interval,
        }
        for table in tables
        for column, heading in enumerate(_columns(table, tables))
        for value, cells in zip(table.rows, table.cells, strict=True)
        if cells[column].mean is not None
    ]
    with style.panel(style.WIDE) as (drawing, axes):
        settings = dict.fromkeys(row["setting"] for row in data)
        for setting, colour in zip(settings, style.SERIES, strict=False):
            own = [row for row in data if row["setting"] == setting]
            axes.errorbar(
                [row["inner_steps"] for row in own],
                [row[response.name] for row in own],
                yerr=[row["interval"] or 0.0 for row in own],
                fmt="o-",
                color=colour,
                capsize=3,
                label=setting,
            )
        if response.log:
            values = [row[response.name] for row in data]
            style.log_axis(axes, "y", min(values), max(values))
        style.linear_axis(axes, "x", whole=True)
        axes.set(xlabel="K, inner steps", ylabel=response.label)
        drawing.legend(loc="outside upper center", ncols=min(2, len(settings)))
    alt = f"{response.label} against the inner steps, a line for each other setting"
    return Figure(f"cells_{response.name}", "", alt, drawing, data)


def _table(response: Response, tables: Sequence[CellsTable], tuned: Collection[str]) -> Table:
    alone = tables[0] if len(tables) == 1 else None
    at = f", {_setting(alone.at)}" if alone and alone.at else ""
    all_cells = [found for table in tables for cells in table.cells for found in cells]
    over = "one training seed"
    if any(found.seeds > 1 for found in all_cells):
        over = "mean ± 95 % t-interval over training seeds"
    caption = f"{sentence(response.label)}{at}: {over}.{_chosen(all_cells, tuned)}"
    columns = [heading for table in tables for heading in _columns(table, tables)]
    values = sorted({value for table in tables for value in table.rows}, key=lambda k: k or 0)
    rows = [[_heading("K", value), *_row(tables, value, response)] for value in values]
    return Table(caption, ["K", *columns], rows)


def _chosen(cells: Iterable[Cell], tuned: Collection[str]) -> str:
    """What is to be said of the step sizes in the cells."""
    if not any(found.chosen for found in cells):
        return ""
    if tuned:
        return " Each cell has the values that were best in its own trials of stage tune."
    return (
        " Each cell has the step sizes with the best mean validation result among those that most "
        "seeds completed; that choice makes the cell a little too good."
    )


def _row(tables: Sequence[CellsTable], value: object, response: Response) -> Iterator[str]:
    for table in tables:
        if value in table.rows:
            yield from (_cell(found, response) for found in table.cells[table.rows.index(value)])
        else:
            yield from ["–"] * len(table.columns)


def _setting(at: Levels) -> str:
    """Fields and their values; an algorithm and its kind are known by the value alone."""
    return ", ".join(
        str(value) if name in ("algorithm", "kind") else f"{name} {cell(value)}"
        for name, value in at.items()
    )


def _columns(table: CellsTable, tables: Sequence[CellsTable]) -> list[str]:
    """The headings of one table's columns among those of all."""
    if len(tables) == 1:
        return [_heading("N", value) for value in table.columns]
    setting = _setting(table.at)
    return [
        setting if value is None else f"{setting}, {_heading('N', value)}"
        for value in table.columns
    ]


def _heading(symbol: str, value: object) -> str:
    return f"{symbol} as it is" if value is None else f"{symbol} = {cell(value)}"


def _cell(found: Cell, response: Response) -> str:
    if found.mean is None:
        ended = ", ".join(f"{n} {status.replace('_', ' ')}" for status, n in found.statuses.items())
        return ended or "–"
    interval = "" if found.interval is None else f" ± {digits(found.interval, 2)}"
    # Said once: the tables of memory and time are of the same trials.
    chosen = _setting(found.chosen) if response.name in ("accuracy", "mse") else ""
    return f"{digits(found.mean, 4)}{interval}{f' ({chosen})' if chosen else ''}"
