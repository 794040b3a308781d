"""Tables of inner steps K by conjugate-gradient iterations N, with step sizes tuned per cell."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial

from analysis.formatting import capitalised
from analysis.records.trials import Trial
from analysis.report import style
from analysis.report.constant import is_constant, range_text
from analysis.report.page import Block, Figure, Gallery, InWords, Table
from analysis.statistics.factorial import STEP_SIZES, Cell, CellsTable, Levels, cells_table
from analysis.statistics.responses import Response
from memmeta.system.units import short

_MAX_COLUMNS = len(style.SERIES)
"""Maximum number of columns of a table and of lines of a figure; each line has its own colour."""


def blocks(trials: Sequence[Trial], response: Response, tuned: Collection[str]) -> Iterable[Block]:
    """Tables of K × N for each combination of the other dimensions, and a figure.

    All combinations share one table with a figure, or have one table each if that is too wide.

    Args:
        trials: trials of stages grid and tune.
        response: the response in the cells.
        tuned: fields that stage tune optimised in each cell.
    """
    tables = cells_table(trials, response, nuisances=tuple(tuned) or STEP_SIZES)
    if sum(len(table.columns) for table in tables) > _MAX_COLUMNS:
        for table in tables:
            yield from _group(response, [table], tuned, [])
        return
    steps = {value for table in tables for value in table.rows}
    figures = [_lines(response, tables)] if len(steps) > 1 else []
    yield from _group(response, tables, tuned, figures)


def _group(
    response: Response,
    tables: Sequence[CellsTable],
    tuned: Collection[str],
    figures: Sequence[Figure],
) -> Iterable[Block]:
    """A table of cells, their settings, and a figure; or a sentence if the cells are equal."""
    table = _table(response, tables, tuned)
    cells = [cell for one in tables for row in one.cells for cell in row]
    means = [cell.mean for cell in cells if cell.mean is not None]
    if not response.metric and len(means) > 1 and is_constant(means):
        yield InWords(
            f"{table.title}: {range_text(response, means)} in all {len(means)} cells with a "
            "result. Cells that differ by less than 1 % are not listed or drawn.",
            figures,
        )
        return
    yield table
    if response.metric:  # said once, since the cells of memory and time are the same trials
        yield from _chosen(tables)
    lines = {row["setting"] for figure in figures for row in figure.data}
    if tuned and len(lines) == 1:
        yield InWords("A figure would repeat the effect of inner_steps shown above.", figures)
    elif lines:
        caption = (
            "The same results as a figure. Points at one K are shifted sideways, so that all are "
            "visible."
        )
        yield Gallery(caption, figures)


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
        steps = sorted({row["inner_steps"] for row in data})
        for number, (setting, colour) in enumerate(zip(settings, style.SERIES, strict=False)):
            own = [row for row in data if row["setting"] == setting]
            shifted = dict(zip(steps, style.dodged(steps, number, len(settings)), strict=True))
            axes.errorbar(
                [shifted[row["inner_steps"]] for row in own],
                [row[response.name] for row in own],
                yerr=[row["interval"] or 0.0 for row in own],
                fmt="o-",
                markersize=4,
                color=colour,
                capsize=3,
                label=setting,
            )
        axes.set_xticks(steps)
        axes.set_xlabel("K, inner steps")
        style.response_axis(axes, "y", response, log=response.log)
        drawing.legend(loc="outside upper center", ncols=min(2, len(settings)))
    alt = f"{response.label} against the inner steps, a line for each other setting"
    return Figure(f"cells_{response.name}", "", alt, drawing, data)


def _table(response: Response, tables: Sequence[CellsTable], tuned: Collection[str]) -> Table:
    only = tables[0] if len(tables) == 1 else None
    setting = f", {_setting(only.at)}" if only and only.at else ""
    all_cells = [cell for table in tables for row in table.cells for cell in row]
    seeds = "One training seed."
    if any(cell.seeds > 1 for cell in all_cells):
        seeds = "Mean ± 95 % t-interval over training seeds."
    return Table(
        f"{capitalised(response.label)}{setting}",
        _headings(tables),
        _rows(tables, partial(_text, response)),
        f"{seeds}{_tuning(all_cells, tuned)}",
    )


def _chosen(tables: Sequence[CellsTable]) -> Iterable[Block]:
    """The selected nuisance parameters of the cells: those that are equal in all cells once."""
    chosen = [cell.chosen for table in tables for row in table.cells for cell in row if cell.chosen]
    names = dict.fromkeys(name for levels in chosen for name in levels)
    values = {name: {levels.get(name) for levels in chosen} for name in names}
    differing = [name for name in names if len(values[name]) > 1]
    same = {name: next(iter(values[name])) for name in names if name not in differing}
    everywhere = f"In all cells: {_setting(same)}." if same else ""
    if differing:

        def text(cell: Cell) -> str:
            return ", ".join(short(cell.chosen[n]) for n in differing if n in cell.chosen) or "–"

        title = f"Selected {', '.join(differing)} of each cell"
        yield Table(title, _headings(tables), _rows(tables, text), everywhere)
    elif same:
        yield everywhere


def _tuning(cells: Iterable[Cell], tuned: Collection[str]) -> str:
    """How the nuisance parameters of the cells were selected."""
    if not any(cell.chosen for cell in cells):
        return ""
    if tuned:
        return " Each cell uses the values that were best in its own trials of stage tune."
    return (
        " Each cell uses the step sizes with the best mean validation result among those that the "
        "most seeds completed; this selection makes the result slightly too good."
    )


def _headings(tables: Sequence[CellsTable]) -> list[str]:
    return ["K", *(heading for table in tables for heading in _columns(table, tables))]


def _rows(tables: Sequence[CellsTable], text: Callable[[Cell], str]) -> list[list[str]]:
    """One row for each K with the cells of all tables, formatted by `text`."""
    values = sorted({value for table in tables for value in table.rows}, key=lambda k: k or 0)
    return [[_heading("K", value), *_row(tables, value, text)] for value in values]


def _row(tables: Sequence[CellsTable], value: object, text: Callable[[Cell], str]) -> Iterator[str]:
    for table in tables:
        if value in table.rows:
            yield from map(text, table.cells[table.rows.index(value)])
        else:
            yield from ["–"] * len(table.columns)


def _setting(at: Levels) -> str:
    """Fields with their values. The algorithm is shown without the name of the field."""
    return ", ".join(
        str(value) if name == "algorithm" else f"{name} {short(value)}"
        for name, value in at.items()
    )


def _columns(table: CellsTable, tables: Sequence[CellsTable]) -> list[str]:
    """Column headings of one table, with its setting if there are several tables."""
    if len(tables) == 1:
        return [_heading("N", value) for value in table.columns]
    setting = _setting(table.at)
    return [
        setting if value is None else f"{setting}, {_heading('N', value)}"
        for value in table.columns
    ]


def _heading(symbol: str, value: object) -> str:
    return f"{symbol} not varied" if value is None else f"{symbol} = {short(value)}"


def _text(response: Response, cell: Cell) -> str:
    if cell.mean is None:
        counts = (f"{n} {status.replace('_', ' ')}" for status, n in cell.statuses.items())
        return ", ".join(counts) or "–"
    return response.text(cell.mean, cell.interval)
