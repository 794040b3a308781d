"""`memmeta train`: train one config."""

from pathlib import Path

import click
from rich.console import Console

from memmeta import checkpoint
from memmeta.command_line import (
    Command,
    cache_option,
    data_root_option,
    device_option,
    failures_in_one_line,
    threads_option,
)
from memmeta.config import RunConfig, parse
from memmeta.errors import InputError
from memmeta.exported import ExportedRun, read_run
from memmeta.fit import train_run
from memmeta.progress import ConsoleProgress
from memmeta.run import Run
from memmeta.system.provenance import expected_difference
from memmeta.system.runtime import configure_process
from memmeta.system.units import mib


@click.command(cls=Command, epilog="Example: memmeta train best.yaml --out model.pt")
@click.argument("config_file", type=click.Path(path_type=Path))
@data_root_option
@cache_option
@click.option("--rank", default=1, show_default=True, help="Which run of an exported file.")
@click.option("--iterations", type=int, help="Outer steps, instead of the config's budget.")
@click.option("--tasks", type=int, help="Tasks seen in all, instead of the config's budget.")
@click.option("--seed", type=int, help="Instead of the config's seed.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Checkpoint; default: runs/train/<key>.pt."
)
@device_option
@threads_option
def train(
    config_file: Path,
    data_root: Path,
    cache: Path | None,
    rank: int,
    iterations: int | None,
    tasks: int | None,
    seed: int | None,
    out: Path | None,
    device: str | None,
    threads: int | None,
) -> None:
    """Train the run of CONFIG_FILE, a YAML config or one written by `memmeta export`.

    Ctrl-C and SIGTERM save the run before it stops. The same command continues it. A killed run
    continues from its last save, which is at most five minutes old.
    """
    exported = read_run(config_file, rank)
    config = _override(exported.config, iterations, tasks, seed)
    recorded = exported.provenance.threads if exported.provenance else None
    configure_process(threads or recorded)
    dataset = exported.config.data.load(data_root, cache)
    path = out or Path("runs/train") / f"{config.key}.pt"
    console = Console(highlight=False)

    def trained() -> Run:
        return train_run(
            config, dataset, device=device, progress=ConsoleProgress(console), checkpoint=path
        )

    with failures_in_one_line():
        try:
            run = trained()
        except checkpoint.DamagedError as error:
            _set_aside(path, error, console, may_set_aside=out is None)
            run = trained()
    _print_summary(console, run, exported)
    command = f"memmeta evaluate {path} --data-root {data_root}"
    command += f" --cache {cache}" if cache else ""
    console.print(f"test it:   {command}", soft_wrap=True)


def _override(
    config: RunConfig, iterations: int | None, tasks: int | None, seed: int | None
) -> RunConfig:
    if iterations and tasks:
        raise InputError("give either --iterations or --tasks")
    values = config.model_dump()
    if iterations is not None or tasks is not None:
        values["training"] |= {"iterations": iterations, "tasks": tasks}
    if seed is not None:
        values["seed"] = seed
    return parse(RunConfig, values, "command line")


def _set_aside(
    path: Path, error: checkpoint.DamagedError, console: Console, may_set_aside: bool
) -> None:
    """Rename a damaged checkpoint, unless the user named it with `--out`: it may be any file."""
    if not may_set_aside:
        raise InputError(f"{error.message}; choose another --out") from None
    aside = checkpoint.set_aside(path)
    console.print(f"{error.message}; renamed to {aside.name}. Training starts over", soft_wrap=True)


def _print_summary(console: Console, run: Run, exported: ExportedRun) -> None:
    val = run.reports[-1].val
    metric = run.config.data.metric
    measured = metric.text(val.value, val.interval)
    console.print(f"{metric.title + ':':<10} {measured} on {val.tasks} validation tasks")
    if exported.results and run.config == exported.config:
        stated = getattr(exported.results, metric.key)
        verdict = "the same" if stated == val.value else _why_not_the_same(run, exported)
        console.print(f"stated:    {metric.alone(stated)}, {verdict}", soft_wrap=True)
    if run.peak_memory is not None:
        console.print(f"peak:      {mib(run.peak_memory, decimals=1)}")
    if run.seconds_per_step is not None:
        console.print(f"step:      {run.seconds_per_step:.3f} s")
    if run.note:
        console.print(f"note:      {run.note}", soft_wrap=True)


def _why_not_the_same(run: Run, exported: ExportedRun) -> str:
    if exported.provenance is None:
        return "not the same"
    difference = expected_difference(exported.provenance.hardware, run.device)
    if difference:
        return f"not the same, as expected: {difference}"
    return "not the same, although the processor, its threads and PyTorch are"
