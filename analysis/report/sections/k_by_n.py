"""Tables of inner steps K by conjugate-gradient iterations N, with step sizes tuned per cell."""

from collections.abc import Collection, Iterable, Iterator, Sequence

from analysis.formatting import capitalised, short, significant
from analysis.records.trials import Trial
from analysis.report import style
from analysis.report.page import Block, Figure, Gallery, Table
from analysis.statistics.factorial import STEP_SIZES, Cell, CellsTable, Levels, cells_table
from analysis.statistics.responses import Response

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
        yield from (_table(response, [table], tuned) for table in tables)
        return
    yield _table(response, tables, tuned)
    rows_with_results = {
        value
        for table in tables
        for value, cells in zip(table.rows, table.cells, strict=True)
        if any(cell.mean is not None for cell in cells)
    }
    if len(rows_with_results) > 1:
        yield Gallery("The same results as a figure.", [_lines(response, tables)])


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
    only = tables[0] if len(tables) == 1 else None
    setting = f", {_setting(only.at)}" if only and only.at else ""
    all_cells = [cell for table in tables for row in table.cells for cell in row]
    seeds = "one training seed"
    if any(cell.seeds > 1 for cell in all_cells):
        seeds = "mean ± 95 % t-interval over training seeds"
    caption = f"{capitalised(response.label)}{setting}: {seeds}.{_tuning(all_cells, tuned)}"
    columns = [heading for table in tables for heading in _columns(table, tables)]
    values = sorted({value for table in tables for value in table.rows}, key=lambda k: k or 0)
    rows = [[_heading("K", value), *_row(tables, value, response)] for value in values]
    return Table(caption, ["K", *columns], rows)


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


def _row(tables: Sequence[CellsTable], value: object, response: Response) -> Iterator[str]:
    for table in tables:
        if value in table.rows:
            yield from (_text(cell, response) for cell in table.cells[table.rows.index(value)])
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


def _text(cell: Cell, response: Response) -> str:
    if cell.mean is None:
        counts = (f"{n} {status.replace('_', ' ')}" for status, n in cell.statuses.items())
        return ", ".join(counts) or "–"
    interval = "" if cell.interval is None else f" ± {significant(cell.interval, 2)}"
    # Shown once, since the tables of memory and time contain the same trials.
    chosen = _setting(cell.chosen) if response.name in ("accuracy", "mse") else ""
    return f"{significant(cell.mean, 4)}{interval}{f' ({chosen})' if chosen else ''}"
