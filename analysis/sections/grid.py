"""The factorial study: main effects over training seeds, and K × N with step sizes re-tuned."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby

from analysis import style
from analysis.factorial import (
    STEP_SIZES,
    Cell,
    CellsTable,
    Effect,
    Levels,
    cells_table,
    difference,
    main_effects,
    varying,
)
from analysis.page import Block, Figure, Gallery, Section, Table, cell
from analysis.responses import Response, quality, responses
from analysis.trials import Sweep, Trial
from memmeta.config import TrainingConfig

TITLE = "Grid"


def section(sweep: Sweep) -> Section | None:
    """The section; None without a grid."""
    if not sweep.of("grid"):
        return None
    trials = sweep.of("tune", "grid")
    tuned = sweep.settings.get("grid", {}).get("tuned", {})
    blocks: list[Block] = [_tuned(sweep, tuned)] if tuned else []
    for response in responses(sweep.metric):
        blocks += _effects(trials, response, tuned)
    for response in responses(sweep.metric):
        blocks += _cells(trials, response, tuned)
    return Section(TITLE, _finding(sweep, trials, tuned), blocks)


_TOGETHER = len(style.SERIES)
"""Columns of one table at most, and lines of one figure: each has its colour."""


def _tuned(sweep: Sweep, tuned: Mapping[str, Sequence[object]]) -> str:
    values = "; ".join(f"{name} of {', '.join(map(cell, of))}" for name, of in tuned.items())
    budget = sweep.settings["grid"].get("tuning")
    amount = f" of {TrainingConfig(**budget).amount} each" if budget else ""
    return (
        f"Every cell was tuned by itself before: {values}, by {len(sweep.of('tune'))} trials of "
        f"stage tune{amount}. That choice was by one seed on the same validation tasks; what is "
        "shown is from fresh seeds."
    )


def _finding(sweep: Sweep, trials: Sequence[Trial], tuned: Collection[str]) -> str:
    dimensions = {name: of for name, of in varying(trials).items() if name not in tuned}
    sizes = " × ".join(f"{len(levels)} {name}" for name, levels in dimensions.items())
    seeds = len({trial.config.seed for trial in sweep.of("grid")})
    finding = f"{sizes or 'One config'}, {seeds} training {'seed' if seeds == 1 else 'seeds'}"
    effects = main_effects(trials, quality(sweep.metric), tuned)
    spans = [_span(list(of_one)) for _, of_one in groupby(effects, lambda e: e.dimension)]
    if not all(effect.by_seed for effect in effects):
        return f"{finding}; no seed has a result in every cell."
    if not spans:
        return f"{finding}."
    highest, lowest, mean, interval = max(spans, key=lambda span: span[2])
    unit = "points" if sweep.metric.unit else sweep.metric.title
    over_seeds, kind = "", "no interval with one seed"
    if interval is not None:
        over_seeds, kind = f" ± {interval:.2g}", "95 % interval over seeds"
    return (
        f"{finding}. {highest.dimension} moves {sweep.metric.title} most: it is "
        f"{mean:.3g}{over_seeds} {unit} higher at {cell(highest.level)} than at "
        f"{cell(lowest.level)} ({kind}; the largest difference there is)."
    )


def _span(effects: Sequence[Effect]) -> tuple[Effect, Effect, float, float | None]:
    """The levels with the highest and the lowest mean, and their difference."""
    highest, lowest = (choose(effects, key=lambda e: e.mean or 0.0) for choose in (max, min))
    mean, interval = difference(highest, lowest)
    return highest, lowest, mean or 0.0, interval


def _effects(trials: Sequence[Trial], response: Response, tuned: Collection[str]) -> list[Block]:
    effects = [e for e in main_effects(trials, response, tuned) if e.mean is not None]
    if not effects:
        return []
    left_out = effects[0].left_out
    seeds = "1 seed lacks" if left_out == 1 else f"{left_out} seeds lack"
    without = f" {seeds} a cell, and count nothing." if left_out else ""
    intervals = (
        ", with its 95 % t-interval over training seeds. That holds what a seed does to all levels "
        "alike: levels can differ though their bars overlap"
    )
    caption = (
        f"Effect of each dimension on {response.title}: the mean over all cells at a level"
        f"{intervals if effects[0].seeds > 1 else ', of one training seed'}.{without}"
    )
    figures = [_figure(response, list(own)) for _, own in groupby(effects, lambda e: e.dimension)]
    return [Gallery(caption, figures)]


def _figure(response: Response, effects: Sequence[Effect]) -> Figure:
    name = effects[0].dimension
    ordered = all(isinstance(effect.level, int | float) for effect in effects)
    with style.panel() as (drawing, axes):
        axes.errorbar(
            range(len(effects)),
            [effect.mean for effect in effects],
            yerr=[effect.interval or 0.0 for effect in effects],
            fmt="o-" if ordered else "o",
            color=style.PURPLE,
            capsize=3,
        )
        axes.set_xticks(range(len(effects)), [cell(effect.level) for effect in effects])
        axes.margins(x=0.15, y=0.15)
        axes.set(xlabel=name, ylabel=response.label)
    data = [
        {name: e.level, response.name: e.mean, "interval": e.interval, "seeds": e.seeds}
        for e in effects
    ]
    alt = f"Mean {response.title} at each level of {name}"
    return Figure(f"grid_{response.name}_{name}", name, alt, drawing, data)


def _cells(trials: Sequence[Trial], response: Response, tuned: Collection[str]) -> Iterable[Block]:
    """K × N for all that else was varied: in one table, or one each if that is too wide."""
    found = cells_table(trials, response, nuisances=tuple(tuned) or STEP_SIZES)
    if sum(len(table.columns) for table in found) > _TOGETHER:
        yield from (_table(response, [table], tuned) for table in found)
        return
    yield _table(response, found, tuned)
    if len({value for table in found for value in table.rows}) > 1:
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
        if response.log and data:
            values = [row[response.name] for row in data]
            style.log_axis(axes, "y", min(values), max(values))
        style.linear_axis(axes, "x", whole=True)
        axes.set(xlabel="K, inner steps", ylabel=response.label)
        drawing.legend(loc="outside upper center", ncols=min(2, len(settings) or 1))
    alt = f"{response.label} against the inner steps, a line for each other setting"
    return Figure(f"cells_{response.name}", "", alt, drawing, data)


def _table(response: Response, tables: Sequence[CellsTable], tuned: Collection[str]) -> Table:
    alone = tables[0] if len(tables) == 1 else None
    at = f", {_setting(alone.at)}" if alone and alone.at else ""
    all_cells = [found for table in tables for cells in table.cells for found in cells]
    over = "one training seed"
    if any(found.seeds > 1 for found in all_cells):
        over = "mean ± 95 % t-interval over training seeds"
    caption = (
        f"{response.label[0].upper()}{response.label[1:]}{at}: {over}.{_chosen(all_cells, tuned)}"
    )
    columns = [heading for table in tables for heading in _columns(table, tables)]
    values = {value: None for table in tables for value in table.rows}
    rows = [[_heading("K", value), *_row(tables, value, response)] for value in values]
    return Table(caption, ["K" if len(rows) > 1 else "", *columns], rows)


def _chosen(cells: Iterable[Cell], tuned: Collection[str]) -> str:
    """What is to be said of the step sizes in the cells."""
    if not any(found.chosen for found in cells):
        return ""
    if tuned:
        return " Each cell has the values that were best in its own trials of stage tune."
    return (
        " Each cell has the step sizes of its best mean validation result; that choice makes the "
        "cell a little too good."
    )


def _row(tables: Sequence[CellsTable], value: object, response: Response) -> Iterator[str]:
    for table in tables:
        if value in table.rows:
            yield from (_cell(found, response) for found in table.cells[table.rows.index(value)])
        else:
            yield from ["–"] * len(table.columns)


def _setting(at: Levels) -> str:
    """Values, and of what they are unless a word says so itself."""
    return ", ".join(
        value if isinstance(value, str) else f"{name} {cell(value)}" for name, value in at.items()
    )


def _columns(table: CellsTable, tables: Sequence[CellsTable]) -> list[str]:
    """The headings of one table's columns among those of all."""
    return [
        _heading("N", value)
        if len(tables) == 1
        else _setting(table.at)
        if value is None
        else f"{_setting(table.at)}, N = {cell(value)}"
        for value in table.columns
    ]


def _heading(symbol: str, value: object) -> str:
    return f"{symbol} as it is" if value is None else f"{symbol} = {cell(value)}"


def _cell(found: Cell, response: Response) -> str:
    if found.mean is None:
        ended = ", ".join(f"{n} {status.replace('_', ' ')}" for status, n in found.statuses.items())
        return ended or "–"
    interval = "" if found.interval is None else f" ± {found.interval:.2g}"
    # Said once: the tables of memory and time are of the same trials.
    chosen = _setting(found.chosen) if response.name in ("accuracy", "mse") else ""
    return f"{found.mean:.4g}{interval}{f' ({chosen})' if chosen else ''}"
