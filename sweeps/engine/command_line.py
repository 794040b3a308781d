"""The command line of a study."""

import math
import sys
from collections.abc import Callable, Mapping
from typing import Any, get_args

import click
from rich.console import Console

import memmeta.system.interrupts  # noqa: F401
from memmeta.command_line import (
    Command,
    OneOf,
    cache_option,
    data_root_option,
    errors_in_one_line,
    run_command,
)
from memmeta.system.stopping import STOP
from memmeta.system.units import Size
from sweeps.engine import run
from sweeps.engine.display import plan
from sweeps.engine.ledger.schedule import Choice
from sweeps.engine.options import Options, options_for
from sweeps.engine.stores.options import storage_option
from sweeps.engine.study import design
from sweeps.engine.study.samplers import SAMPLERS
from sweeps.engine.study.study import Study

# A study in Python may be invalid before it calls `main`.
errors_in_one_line()


def _finite(context: click.Context, option: click.Parameter, value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a finite number.", context, option)
    return value


ledger_option = click.option(
    "--ledger",
    metavar="URL",
    envvar="MEMMETA_LEDGER",
    show_envvar=True,
    help="Database for the record of the sweep, instead of a journal in the storage folder.",
)

_OPTIONS = (
    data_root_option,
    cache_option,
    click.option(
        "--stage",
        type=OneOf(get_args(Choice)),
        help="explore: a space-filling design; search: the optimiser; confirm: the best configs "
        "with fresh seeds and on test tasks; all: these three within one budget; grid: every "
        "combination of --grid. Default: all, or grid if the study has one.",
    ),
    click.option("--trials", type=click.IntRange(min=1), help="Total number of trials."),
    click.option(
        "--iterations",
        type=click.IntRange(min=1),
        help="Outer steps of a trial. Trials of stage tune may have their own budget in the study.",
    ),
    click.option(
        "--tasks",
        type=click.IntRange(min=1),
        help="Training tasks of a trial, instead of --iterations.",
    ),
    click.option(
        "--grid",
        multiple=True,
        metavar="NAME=V,V…",
        help="Run every combination of these values. Repeat the option for further fields.",
    ),
    click.option(
        "--tune",
        multiple=True,
        metavar="NAME=V,V…",
        help="Try these values first for each combination of the grid, and use the best.",
    ),
    click.option(
        "--seeds",
        type=click.IntRange(min=1),
        help="Training seeds for each config in stages confirm and grid.",
    ),
    click.option(
        "--evaluate-on",
        multiple=True,
        metavar="NAME",
        help="Score confirmed models on test tasks of this other data set, too. Repeat the option "
        "for further ones.",
    ),
    click.option("--objective", help="accuracy (regression: mse), or accuracy,memory."),
    click.option(
        "--memory-limit",
        type=Size(),
        help="Maximum peak memory of a feasible trial: a constraint of the search.",
    ),
    click.option(
        "--sampler",
        help=f"Sampler of stage search: {', '.join(SAMPLERS)}, optuna.samplers.CmaEsSampler or any "
        "other import path, or optunahub:NAME.",
    ),
    click.option(
        "--asha", is_flag=True, default=None, help="Stop trials of stage search early (ASHA)."
    ),
    click.option("--seed", type=click.IntRange(0, 2**63), default=0, show_default=True),
    storage_option,
    click.option("--fresh", is_flag=True, help="Start a new version of the sweep."),
    ledger_option,
    click.option(
        "--max-concurrent",
        type=click.IntRange(min=1),
        help="Maximum number of trials that run at once.",
    ),
    click.option(
        "--cpus-per-trial",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="CPUs and threads of a trial.",
    ),
    click.option(
        "--gpu-memory-budget",
        "--memory-budget",
        "memory_budget",
        type=Size(),
        help="Maximum GPU memory (without GPUs: RAM) of a trial. Larger trials are not started.",
    ),
    click.option(
        "--tracking-uri",
        envvar="MLFLOW_TRACKING_URI",
        show_envvar=True,
        help="MLflow store; default: mlflow.db in the storage folder.",
    ),
    click.option("--experiment", help="MLflow experiment; default: the study's name."),
    click.option("--dry-run", is_flag=True, help="Print the plan and its cost, and exit."),
    click.option(
        "--price-per-hour",
        type=click.FloatRange(min=0),
        callback=_finite,
        help="Price of a GPU (without GPUs: of a CPU) per hour, for the plan.",
    ),
)  # fmt: skip


def study_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a study to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def main(study: Study) -> None:
    """Run the command line of `study`, and exit."""
    run_command(_command, f"python sweeps/{study.name}.py", study)


@click.command(cls=Command)
@study_options
@click.pass_obj
def _command(study: Study, /, **options: Any) -> None:
    """Search this study's hyperparameters. Run the same command again to continue."""
    start(study, **options)


def start(study: Study, *, dry_run: bool, price_per_hour: float | None, **values: Any) -> None:
    """Run `study` with the values of `study_options`, and exit.

    Raises:
        click.UsageError: options contradict each other.
        InputError: the study or the data cannot be used.
    """
    given = {name: value for name, value in values.items() if name in Options.model_fields}
    overrides = {name: value for name, value in values.items() if name not in given}
    study = _overridden(study, **overrides)
    options = options_for(study, **given)
    _check_overrides(options.stage, overrides)
    console = Console(highlight=False)
    if dry_run:
        run.load_others(study, options)  # refuses what the sweep would refuse
        plan.show(console, study, options, run.load_data(study, options), price_per_hour)
        return
    ended = run.sweep(console, study, options)
    sys.exit(STOP.exit_code if STOP.requested else int(not ended.finished))


def _check_overrides(stage: Choice, overrides: Mapping[str, Any]) -> None:
    """Check that the options that change the study fit the stage.

    Raises:
        click.UsageError: they do not.
    """
    if stage != "grid":
        for option in ("grid", "tune"):
            if overrides[option]:
                raise click.UsageError(f"--{option} is not for --stage {stage}")
        return
    if overrides["trials"]:
        raise click.UsageError("the grid determines the number of trials: leave out --trials")
    for option in ("evaluate_on", "objective", "memory_limit", "sampler", "asha"):
        if overrides[option]:
            raise click.UsageError(f"--{option.replace('_', '-')} is not for --stage grid")


def _overridden(
    study: Study,
    *,
    iterations: int | None,
    tasks: int | None,
    grid: tuple[str, ...],
    tune: tuple[str, ...],
    evaluate_on: tuple[str, ...],
    **fields: Any,
) -> Study:
    """The study, changed by the options of the command line."""
    changes = {name: value for name, value in fields.items() if value is not None}
    if iterations and tasks:
        raise click.UsageError("give either --iterations or --tasks")
    if iterations or tasks:
        budget = {"iterations": iterations, "tasks": tasks}
        changes["training"] = study.training.model_copy(update=budget)
    if grid:
        changes["grid"] = design.parse_grid("--grid", grid)
    if tune:
        changes["tuned"] = design.parse_grid("--tune", tune)
    if evaluate_on:
        changes["evaluate_on"] = evaluate_on
    return study.changed(**changes)
