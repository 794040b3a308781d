"""Command line: train one config, evaluate a checkpoint, predict memory, download data."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress

import memmeta.system.interrupts  # noqa: F401
from memmeta import checkpoint, data
from memmeta.command_line import (
    Command,
    Group,
    cache_option,
    chosen_device,
    data_root_option,
    device_option,
    run_command,
    threads_option,
    train_to_end,
)
from memmeta.config import DataConfig, LearnerConfig, RunConfig, parse
from memmeta.errors import FailedError, InputError, cannot_write
from memmeta.exported import ExportedRun, read_run
from memmeta.memory import limits
from memmeta.memory import table as memory_table
from memmeta.networks import BACKBONES, HEADS
from memmeta.system.provenance import expected_difference
from memmeta.system.runtime import configure_process
from memmeta.system.units import mib
from memmeta.training import DivergedError, MetaTrainer


@click.group(cls=Group)
def main() -> None:
    """Memory-reduced meta-learning: train and evaluate few-shot learners."""


@main.command()
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
    """Train the run of CONFIG_FILE, a YAML config or one written by `analysis export`.

    Ctrl-C and SIGTERM save the run before it stops. The same command continues it. A killed run
    continues from its last save, which is at most five minutes old.
    """
    exported = read_run(config_file, rank)
    config = _override(exported.config, iterations, tasks, seed)
    recorded = exported.provenance.threads if exported.provenance else None
    configure_process(threads or recorded)
    dataset, torch_device = data.load(config.data.name, data_root, cache), chosen_device(device)
    path = out or Path("runs/train") / f"{config.key}.pt"
    console = Console(highlight=False)
    with _failure_in_one_line():
        trainer = MetaTrainer(config, dataset, torch_device)
        if path.exists():
            trainer = _resumed(trainer, path, console, may_set_aside=out is None)
        if not trainer.done:
            checkpoint.check_writable(path)
        train_to_end(trainer, console, lambda: _save(path, trainer))
    _print_summary(console, trainer, exported)
    command = f"python -m memmeta evaluate {path} --data-root {data_root}"
    command += f" --cache {cache}" if cache else ""
    console.print(f"test it:   {command}", soft_wrap=True)


@main.command()
@click.argument("checkpoint_file", type=click.Path(path_type=Path))
@data_root_option
@cache_option
@click.option("--split", type=click.Choice(["val", "test"]), default="test", show_default=True)
@click.option("--tasks", type=click.IntRange(min=2), help="Episodes; default: the config's.")
@device_option
@threads_option
def evaluate(
    checkpoint_file: Path,
    data_root: Path,
    cache: Path | None,
    split: str,
    tasks: int | None,
    device: str | None,
    threads: int | None,
) -> None:
    """Score CHECKPOINT_FILE, which `train` wrote, on test (or validation) episodes."""
    saved = checkpoint.load(checkpoint_file)
    config = saved.config
    configure_process(threads)
    dataset, torch_device = data.load(config.data.name, data_root, cache), chosen_device(device)
    with _failure_in_one_line():
        trainer = MetaTrainer(config, dataset, torch_device)
        checkpoint.restore(trainer, saved, checkpoint_file)
        if split == "val":
            result = trainer.evaluate("val", tasks or config.training.val_tasks)
        else:
            result = trainer.evaluate("test", tasks or config.training.test_tasks)
    metric = config.data.metric
    click.echo(f"{split} {metric.title} {metric.text(result.value, result.interval)}")


class _ManyValues(Command):
    """Accepts several values after one option: `--option 1 5` or `--option=1 5`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        many = {o for p in self.params if getattr(p, "multiple", False) for o in p.opts}
        expanded: list[str] = []
        option = ""
        for word in args:
            if word.startswith("-"):
                name = word.partition("=")[0]
                option = name if name in many else ""
            elif option and expanded[-1] != option:
                expanded.append(option)
            expanded.append(word)
        return super().parse_args(ctx, expanded)


_FOR_IMAGES = BACKBONES.names(lambda backbone: backbone.takes_images)


@main.command(cls=_ManyValues)
@click.option("--inner-steps", type=click.IntRange(min=0), multiple=True,
              default=(1, 5, 10, 15, 20), show_default=True, help="K, one or more.")  # fmt: skip
@click.option("--cg-steps", default=20, show_default=True, help="N.")
@click.option("--task-batch", default=1, show_default=True, help="Tasks in a step.")
@click.option("--chunk", type=click.IntRange(min=1), multiple=True,
              help="Images in the backbone at a time, one or more, besides all.")  # fmt: skip
@click.option("--backbone", type=click.Choice(_FOR_IMAGES), default="conv4", show_default=True)
@click.option("--filters", default=64, show_default=True)
@click.option("--norm", type=click.Choice(["batch", "frozen", "group"]), default="batch",
              show_default=True)  # fmt: skip
@click.option("--head", type=click.Choice([*HEADS]), default="linear",
              show_default=True)  # fmt: skip
@click.option("--image-size", default=32, show_default=True, help="Height and width, RGB.")
@click.option("--ways", default=5, show_default=True)
@click.option("--shots", default=5, show_default=True)
@click.option("--queries", default=5, show_default=True)
@click.option("--device", help="Measure on this device; default: predict, which needs none.")
@click.option("--json", "as_json", is_flag=True, help="A list of rows, for machines.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw the figure into this file.")
def memory(
    inner_steps: tuple[int, ...],
    chunk: tuple[int, ...],
    image_size: int,
    ways: int,
    shots: int,
    queries: int,
    device: str | None,
    as_json: bool,
    plot: Path | None,
    **learner: object,
) -> None:
    """Peak memory of a step against the inner steps K, for all algorithms."""
    computed = []
    episode = {"ways": ways, "shots": shots, "queries": queries}
    rows = memory_table.rows(
        parse(DataConfig, episode, "command line"),
        parse(LearnerConfig, learner, "command line"),
        (3, image_size, image_size),
        inner_steps,
        chunk,
        chosen_device(device) if device else None,
    )
    errors = Console(stderr=True)
    with Progress(console=errors, transient=True, disable=not errors.is_terminal) as progress:
        for row in progress.track(rows, description="methods and K", total=None):
            computed.append(row)
    if as_json:
        click.echo(json.dumps([row._asdict() for row in computed], indent=1))
    else:
        Console(highlight=False).print(memory_table.table(computed))
    if plot:
        title = f"{learner['backbone']}, {image_size}×{image_size}, {ways}-way {shots}-shot"
        memory_table.plot(computed, plot, title)


@main.command()
@click.argument("name", type=click.Choice([*data.DATA_SETS]))
@data_root_option
@cache_option
def download(name: str, data_root: Path, cache: Path | None) -> None:
    """Fetch the data set NAME into the data root, where that is possible, and prepare its cache."""
    data.download(name, data_root)
    click.echo(f"ready: {data.prepare(name, data_root, cache)}")


@contextmanager
def _failure_in_one_line() -> Iterator[None]:
    """Report divergence and lack of memory in one line, with exit code 1."""
    try:
        yield
    except DivergedError as error:
        raise FailedError(f"{error}; a smaller inner_lr or outer_lr may help") from None
    except (RuntimeError, MemoryError) as error:
        if not limits.is_out_of_memory(error):
            raise
        message = "out of memory; a smaller task_batch, or a chunk, may help"
        raise FailedError(message) from None


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


def _resumed(
    trainer: MetaTrainer, path: Path, console: Console, may_set_aside: bool
) -> MetaTrainer:
    """The trainer in the state of the checkpoint, or a new trainer if the checkpoint is damaged.

    A damaged file is moved, unless the user named it with `--out`: it may be any file.
    """
    try:
        checkpoint.resume(trainer, path)
    except checkpoint.OtherRunError as error:
        raise InputError(f"{error.message}; choose another --out") from None
    except checkpoint.DamagedError as error:
        if not may_set_aside:
            raise InputError(f"{error.message}; choose another --out") from None
        aside = checkpoint.set_aside(path)
        console.print(
            f"{error.message}; renamed to {aside.name}. Training starts over", soft_wrap=True
        )
        return MetaTrainer(trainer.config, trainer.dataset, trainer.device)
    console.print(f"continuing from {path}, step {trainer.iteration}", soft_wrap=True)
    return trainer


def _save(path: Path, trainer: MetaTrainer) -> None:
    try:
        checkpoint.save(path, trainer)
    except OSError as error:
        message = f"{cannot_write(path, error).message}; the same command continues"
        raise FailedError(message) from None


def _print_summary(console: Console, trainer: MetaTrainer, exported: ExportedRun) -> None:
    val = trainer.reports[-1].val
    metric = trainer.config.data.metric
    measured = metric.text(val.value, val.interval)
    console.print(f"{metric.title + ':':<10} {measured} on {val.tasks} validation tasks")
    if exported.results and trainer.config == exported.config:
        stated = getattr(exported.results, metric.key)
        verdict = "the same" if stated == val.value else _why_not_the_same(trainer, exported)
        console.print(f"stated:    {metric.alone(stated)}, {verdict}", soft_wrap=True)
    if trainer.peak_memory is not None:
        console.print(f"peak:      {mib(trainer.peak_memory, decimals=1)}")
    if trainer.seconds_per_step is not None:
        console.print(f"step:      {trainer.seconds_per_step:.3f} s")
    if trainer.note:
        console.print(f"note:      {trainer.note}", soft_wrap=True)


def _why_not_the_same(trainer: MetaTrainer, exported: ExportedRun) -> str:
    if exported.provenance is None:
        return "not the same"
    difference = expected_difference(exported.provenance.hardware, trainer.device)
    if difference:
        return f"not the same, as expected: {difference}"
    return "not the same, although the processor, its threads and PyTorch are"


if __name__ == "__main__":
    run_command(main, "python -m memmeta")
