"""Trials for human eyes, and as flat rows for machines."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from analysis.records.trials import BLOCKS, RANKED, Sweep, Trial

_UNLIMITED = 10_000

_NO_RANK = "–"
"""Printed instead of a rank."""


@dataclass(frozen=True)
class Column:
    """A column of a table, as it is printed."""

    heading: str
    """May have several lines."""
    cells: list[str]
    """One a row."""


def rows(sweep: Sweep) -> list[dict[str, object]]:
    """A dict a trial, all with the same keys; only those of `Sweep.complete` have a rank."""
    ranks = _ranks(sweep)
    settings = _settings(sweep.trials)
    return [
        {
            "study": sweep.study,
            "sweep": sweep.name,
            "rank": ranks.get(trial.run_id),
            "stage": trial.stage,
            "index": trial.index,
            "run_name": trial.run_name,
            "status": trial.status,
            "message": trial.message,
            **{name: values[number] for name, values in settings.items()},
            trial.config.data.metric.key: trial.value,
            "val_interval": trial.val_interval,
            f"test_{trial.config.data.metric.name}": trial.test_value,
            "test_interval": trial.test_interval,
            "peak_memory_bytes": trial.peak_memory_bytes,
            "predicted_memory_bytes": trial.predicted_memory_bytes,
            "reserved_memory_bytes": trial.reserved_memory_bytes,
            "seconds_per_step": trial.seconds_per_step,
            "seconds": trial.seconds,
            "key": trial.key,
            "run_id": trial.run_id,
            "parent_run_id": trial.parent_run_id,
            "commit": trial.commit,
            "hardware": trial.hardware,
            "threads": trial.threads,
            "gpus": trial.gpus,
            "data_digest": trial.data_digest,
        }
        for number, trial in enumerate(sweep.trials)
    ]


def show(console: Console, sweep: Sweep) -> None:
    """Print the trials, a line each, with the hyperparameters in which they differ.

    Stages that are not to be compared stand in blocks of their own.
    """
    settings, ranks = _settings(sweep.trials), _ranks(sweep)
    shared = {name for name, values in settings.items() if _same(values)}
    console.print(f"{sweep.name}: {len(sweep.trials)} trials")
    for stages in BLOCKS:
        trials = sweep.of(*stages)
        if trials:
            complete = sum(trial.status == "complete" for trial in trials)
            feasible = _feasible(sweep) if stages == RANKED else ""
            names = " and ".join(stages)
            console.print(f"\n{names}: {complete} of {len(trials)} trials complete{feasible}")
            _show_block(console, trials, ranks, shared)
    if shared:
        same = ", ".join(
            f"{name} {short(settings[name][0])}" for name in settings if name in shared
        )
        console.print(f"\nthe same in all: {same}")


def _ranks(sweep: Sweep) -> dict[str, int]:
    """Places in the ranking, by MLflow run."""
    return {trial.run_id: rank for rank, trial in enumerate(sweep.complete, 1)}


def _feasible(sweep: Sweep) -> str:
    """How many of the complete trials are feasible, if the sweep has a memory limit."""
    limit = sweep.memory_limit
    if limit is None:
        return ""
    return f", {len(sweep.complete)} of them feasible (peak memory at most {mebibytes(limit)} MiB)"


def _unranked(trials: tuple[Trial, ...], ranks: dict[str, int]) -> str | None:
    """Why trials have no rank, and how many for each reason; None if all have one."""
    reasons = Counter(
        "over the memory limit" if trial.status == "complete" else trial.status.replace("_", " ")
        for trial in trials
        if trial.run_id not in ranks
    )
    counts = ", ".join(f"{number} {reason}" for reason, number in reasons.items())
    return f"{_NO_RANK} no rank: {counts}" if counts else None


def _show_block(
    console: Console, trials: tuple[Trial, ...], ranks: dict[str, int], shared: set[str]
) -> None:
    """Print the trials of some stages, except for what is said of all stages."""
    own = {name: values for name, values in _settings(trials).items() if name not in shared}
    columns = [
        *_result_columns(trials),
        *(
            Column(name.replace("_", "\n"), list(map(short, values)))
            for name, values in own.items()
            if not _same(values)
        ),
    ]
    for table in tables(console, _naming_columns(trials, ranks), columns):
        console.print(table)
    unranked = _unranked(trials, ranks) if trials[0].stage in RANKED else None
    if unranked:
        console.print(unranked)
    same = [f"{name} {short(values[0])}" for name, values in own.items() if _same(values)]
    if same:
        console.print(f"the same in these: {', '.join(same)}")


def _settings(trials: tuple[Trial, ...]) -> dict[str, list[object]]:
    """Every setting and its value in each trial, None where a trial does without."""
    flat = [trial.config.flat() for trial in trials]
    names = dict.fromkeys(name for values in flat for name in values)
    return {name: [values.get(name) for values in flat] for name in names}


def _same(values: list[object]) -> bool:
    return all(value == values[0] for value in values)


def _naming_columns(trials: tuple[Trial, ...], ranks: dict[str, int]) -> list[Column]:
    names = Column("trial", [f"{trial.stage} {trial.index:03d}" for trial in trials])
    if trials[0].stage not in RANKED:
        return [names]
    return [Column("#", [str(ranks.get(trial.run_id, _NO_RANK)) for trial in trials]), names]


def _result_columns(trials: tuple[Trial, ...]) -> list[Column]:
    metric = trials[0].config.data.metric  # One sweep, one data set.
    columns = [
        # The value of a trial that did not end well compares with no other: its status
        # stands in that place.
        Column(f"val {metric.title}\n{metric.unit}".rstrip(), list(map(_result, trials))),
        Column("peak\nMiB", [mebibytes(trial.peak_memory_bytes) for trial in trials]),
        Column("s/step", [short(trial.seconds_per_step) for trial in trials]),
    ]
    if any(trial.test_value is not None for trial in trials):
        test = Column(f"test {metric.title}\n{metric.unit}".rstrip(), list(map(_test, trials)))
        columns.insert(1, test)
    return columns


def tables(console: Console, naming: list[Column], columns: list[Column]) -> Iterator[Table]:
    """One table, or where the console is too narrow several below each other.

    Numbers are never cut or wrapped: a wide table continues with the trials named again.
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
    room = console.options.update(width=_UNLIMITED)
    return Measurement.get(console, room, table).maximum <= console.width


def _table(columns: list[Column], gap: int = 0) -> Table:
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


def _test(trial: Trial) -> str:
    if trial.status != "complete" or trial.test_value is None or trial.test_interval is None:
        return ""
    return trial.config.data.metric.number(trial.test_value, trial.test_interval)


def mebibytes(peak: int | None) -> str:
    """A peak in a cell, in MiB; nothing for None."""
    return "" if peak is None else f"{peak / 2**20:.1f}"


def short(value: object) -> str:
    """A value in a cell: floats to three digits, nothing for None."""
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
