"""The command line that every study script offers, and the sweep behind it."""

import logging
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import click
import optuna
import ray
from ray import tune
from ray.tune.experiment import Trial
from rich.console import Console

from memmeta import data
from memmeta.errors import InputError
from sweeps.engine import placement, plan
from sweeps.engine.ledger import Ledger, only_one, result_of
from sweeps.engine.progress import Progress
from sweeps.engine.search import LedgerSearch
from sweeps.engine.store import default_uri, without_credentials
from sweeps.engine.study import Study
from sweeps.engine.table import best_table
from sweeps.engine.tracking import Tracker
from sweeps.engine.trainable import MetaTrainable

_LOST_MACHINES = 3
"""How often a trial whose worker died is started again."""


@dataclass(frozen=True)
class Options:
    """The command line."""

    data_root: Path
    trials: int
    seed: int
    storage: Path
    max_concurrent: int | None
    tracking_uri: str
    experiment: str


def main(study: Study) -> None:
    """Run `study` as the command line says."""
    _command.main(obj=study, prog_name=f"python sweeps/{study.name}.py")


@click.command()
@click.option(
    "--data-root",
    type=click.Path(path_type=Path),
    default=Path("data"),
    show_default=True,
    help="Folder with the data sets and their cache.",
)
@click.option("--trials", type=click.IntRange(min=1), help="Trials of the study in all.")
@click.option("--iterations", type=click.IntRange(min=1), help="Outer steps a trial.")
@click.option("--tasks", type=click.IntRange(min=1), help="Tasks a trial sees, instead.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--storage",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="Folder for everything of the sweep: journal, checkpoints, mlflow.db.",
)
@click.option("--max-concurrent", type=click.IntRange(min=1), help="Trials that run at once.")
@click.option("--tracking-uri", help="MLflow store; default: mlflow.db in the storage folder.")
@click.option("--experiment", help="MLflow experiment; default: the study's name.")
@click.option("--dry-run", is_flag=True, help="Print the plan and its predicted cost; run nothing.")
@click.pass_obj
def _command(
    study: Study,
    data_root: Path,
    trials: int | None,
    iterations: int | None,
    tasks: int | None,
    seed: int,
    storage: Path,
    max_concurrent: int | None,
    tracking_uri: str | None,
    experiment: str | None,
    dry_run: bool,
) -> None:
    """Search this study's hyperparameters. The same command again goes on where it stopped."""
    if iterations and tasks:
        raise click.UsageError("give either --iterations or --tasks")
    if iterations or tasks:
        budget = study.training.model_copy(update={"iterations": iterations, "tasks": tasks})
        study = replace(study, training=budget)
    options = Options(
        data_root=data_root.resolve(),
        trials=trials or study.trials,
        seed=seed,
        storage=storage.resolve(),
        max_concurrent=max_concurrent,
        tracking_uri=tracking_uri or default_uri(storage),
        experiment=experiment or study.name,
    )
    _quiet()
    console = Console(highlight=False)
    dataset = data.load(study.data.name, options.data_root)
    if dry_run:
        plan.show(console, study, options.trials, seed, dataset)
        return
    sys.exit(sweep(console, study, options))


def sweep(console: Console, study: Study, options: Options) -> int:
    """Run what is still to be run, and print the best configs. Returns the exit code.

    Raises:
        InputError: the sweep cannot be gone on with, or its stores cannot be opened.
    """
    folder = options.storage / study.sweep_name(options.seed)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror})") from None
    with only_one(folder):
        ledger = Ledger(study, options.seed, folder)
        done = len(ledger.finished)
        console.print(f"[bold]{study.sweep_name(options.seed)}[/]: {done} of {options.trials} done")
        bug = None
        if done < options.trials:
            bug = _run(console, study, options, ledger, folder)
        _summarise(console, study, options, ledger)
    if bug:
        raise click.ClickException(f"stopped by a bug in a trial:\n{bug}")
    return 0 if len(ledger.finished) >= options.trials else 1


def _run(
    console: Console, study: Study, options: Options, ledger: Ledger, folder: Path
) -> str | None:
    """Run the trials that are missing. Returns the traceback of a bug that stopped them."""
    tracker = Tracker(
        study, options.seed, options.tracking_uri, options.experiment, options.storage
    )
    progress = Progress(console, ledger, options.trials)
    stop = StopOnBug()
    ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    resources = placement.per_trial()
    trainable = tune.with_parameters(
        MetaTrainable, data_root=options.data_root, checkpoints=folder / "checkpoints"
    )
    tuner = tune.Tuner(
        tune.with_resources(trainable, resources),
        tune_config=tune.TuneConfig(
            search_alg=LedgerSearch(ledger),
            num_samples=options.trials - len(ledger.finished),
            max_concurrent_trials=options.max_concurrent or placement.slots(resources),
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name="ray",
            storage_path=str(folder),
            callbacks=[tracker, progress],
            stop=stop,
            failure_config=tune.FailureConfig(max_failures=_LOST_MACHINES),
            verbose=0,
        ),
    )
    try:
        tuner.fit()
    finally:
        progress.stop()
        tracker.close(
            finished=len(ledger.finished) >= options.trials, summary=_best_metrics(ledger)
        )
        ray.shutdown()
    return stop.bug


class StopOnBug(tune.Stopper):
    """Stops the sweep at the first bug in a trial: the next trial would meet it too."""

    def __init__(self) -> None:
        self.bug: str | None = None

    def __call__(self, _trial_id: str, result: dict) -> bool:
        """Take note of a failure."""
        if result["status"] == "failed":
            self.bug = result["message"]
        return False

    def stop_all(self) -> bool:
        """Whether to stop."""
        return self.bug is not None


def _trial_name(trial: Trial) -> str:
    return f"trial-{trial.config['number']:03d}"


def _best_metrics(ledger: Ledger) -> dict[str, float]:
    best = ledger.ranked
    if not best:
        return {}
    key = ledger.metric.key
    return {"trials": len(ledger.finished), key: result_of(best[0])["metrics"][key]}


def _summarise(console: Console, study: Study, options: Options, ledger: Ledger) -> None:
    trials = ledger.finished
    complete = ledger.ranked
    if complete:
        console.print(best_table(ledger.metric, complete[:3]))
    if len(complete) < len(trials):
        console.print(f"{len(trials) - len(complete)} trials were infeasible")
    if len(trials) < options.trials:
        console.print(f"{len(trials)} of {options.trials} done; the same command goes on")
    where = ""
    if options.tracking_uri != default_uri(options.storage):
        where = f" --tracking-uri {without_credentials(options.tracking_uri)}"
    elif options.storage != Path("runs").resolve():
        where = f" --storage {options.storage}"
    for command in (
        f"python -m analysis trials {study.name}{where}",
        f"python -m analysis export {study.name} --top 3 --out best.yaml{where}",
        f"mlflow ui --backend-store-uri {without_credentials(options.tracking_uri)}",
    ):
        console.print(command, soft_wrap=True)


def _quiet() -> None:
    """Keep the chatter of libraries out of the way of the live view."""
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("ray").setLevel(logging.ERROR)
    # It says of trials that wait for the next start that they did not complete.
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)
