"""Trials for human eyes, and as flat rows for machines."""

from collections.abc import Iterator
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from analysis.trials import Sweep, Trial

_UNLIMITED = 10_000


@dataclass(frozen=True)
class _Column:
    heading: str
    cells: list[str]


def rows(sweep: Sweep) -> list[dict[str, object]]:
    """A dict a trial, all with the same keys; only complete trials have a rank."""
    return [
        {
            "study": sweep.study,
            "sweep": sweep.name,
            "rank": rank if trial.status == "complete" else None,
            "number": trial.number,
            "run_name": trial.run_name,
            "status": trial.status,
            **trial.config.flat(),
            trial.config.data.metric.key: trial.value,
            "val_interval": trial.val_interval,
            "peak_memory_bytes": trial.peak_memory_bytes,
            "seconds_per_step": trial.seconds_per_step,
            "key": trial.key,
            "run_id": trial.run_id,
            "parent_run_id": trial.parent_run_id,
            "commit": trial.commit,
            "hardware": trial.hardware,
            "threads": trial.threads,
            "data_digest": trial.data_digest,
        }
        for rank, trial in enumerate(sweep.trials, 1)
    ]


def show(console: Console, sweep: Sweep) -> None:
    """Print the trials, a line each, with the hyperparameters in which they differ."""
    trials = sweep.trials
    console.print(f"{sweep.name}: {len(sweep.complete)} of {len(trials)} trials complete")
    if not trials:
        return
    values = [trial.config.flat() for trial in trials]
    differing = [name for name in values[0] if len({value[name] for value in values}) > 1]
    columns = [
        *_result_columns(trials),
        *(
            _Column(name.replace("_", "\n"), [_short(value[name]) for value in values])
            for name in differing
        ),
    ]
    for table in _tables(console, _naming_columns(trials), columns):
        console.print(table)
    same = (f"{name} {_short(value)}" for name, value in values[0].items() if name not in differing)
    console.print(f"the same in all: {', '.join(same)}")


def _naming_columns(trials: tuple[Trial, ...]) -> list[_Column]:
    ranks = [
        str(rank) if trial.status == "complete" else "–" for rank, trial in enumerate(trials, 1)
    ]
    return [
        _Column("#", ranks),
        _Column("trial", [f"{trial.number:03d}" for trial in trials]),
    ]


def _result_columns(trials: tuple[Trial, ...]) -> list[_Column]:
    metric = trials[0].config.data.metric  # One sweep, one data set.
    heading = f"val {metric.title}\n{metric.unit}".rstrip()
    return [
        # The value of a trial that did not end well compares with no other: its status
        # stands in that place.
        _Column(heading, [_result(trial) for trial in trials]),
        _Column("peak\nMiB", [_scaled(trial.peak_memory_bytes) for trial in trials]),
        _Column("s/step", [_short(trial.seconds_per_step) for trial in trials]),
    ]


def _tables(console: Console, naming: list[_Column], columns: list[_Column]) -> Iterator[Table]:
    """One table, or where the console is too narrow several below each other.

    Numbers are never cut or wrapped: a wide table continues with the trials named again.
    """
    spacious = _table([*naming, *columns], gap=1)
    if _fits(console, spacious):
        yield spacious
        return
    block: list[_Column] = []
    for column in columns:
        if block and not _fits(console, _table([*naming, *block, column])):
            yield _table([*naming, *block])
            block = []
        block.append(column)
    yield _table([*naming, *block])


def _fits(console: Console, table: Table) -> bool:
    room = console.options.update(width=_UNLIMITED)
    return Measurement.get(console, room, table).maximum <= console.width


def _table(columns: list[_Column], gap: int = 0) -> Table:
    """A table with `gap` spaces between columns beyond the one that is always there."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, gap, 0, 0), show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(column.heading, justify="right", no_wrap=True, vertical="bottom")
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*cells)
    return table


def _result(trial: Trial) -> str:
    if trial.status != "complete" or trial.value is None or trial.val_interval is None:
        return trial.status.replace("_", " ")
    return trial.config.data.metric.number(trial.value, trial.val_interval)


def _scaled(peak: int | None) -> str:
    return "" if peak is None else f"{peak / 2**20:.1f}"


def _short(value: object) -> str:
    """A value in a cell: floats to three digits, nothing for None."""
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
