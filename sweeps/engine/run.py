"""A sweep from beginning to end."""

import logging
import os
import re
import shlex
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import click
import optuna
from ray import tune
from ray.tune.error import TuneError
from ray.tune.experiment import Trial
from rich.console import Console

from memmeta import data
from memmeta.errors import InputError
from memmeta.prediction import predict_trial_memory
from sweeps.engine import cluster
from sweeps.engine.ledger import Ledger, only_one
from sweeps.engine.options import Options
from sweeps.engine.placement import Placement, find_devices
from sweeps.engine.preflight import Question, check_nodes, guarded, marked, software
from sweeps.engine.progress import Progress
from sweeps.engine.schedule import Schedule, quotas
from sweeps.engine.search import LedgerSearch, Recorder, Watch
from sweeps.engine.store import default_uri, without_credentials
from sweeps.engine.study import Study
from sweeps.engine.table import best_table
from sweeps.engine.tracking import Tracker
from sweeps.engine.trainable import STORAGE_ERRORS, MetaTrainable

_LOST_MACHINES = 3
"""How often a trial whose worker died is started again."""

_PENDING = 2
"""Trials that wait for room where their sizes differ: so a big one does not hold up small ones."""


def sweep(console: Console, study: Study, options: Options) -> int:
    """Run what is still to be run, and print the best configs. Returns the exit code.

    Raises:
        InputError: the sweep cannot be gone on with, or its stores cannot be opened.
    """
    folder = _folder(options.storage, study.sweep_name(options.seed), options.fresh)
    with _disk(folder), only_one(folder):
        wanted = quotas(study, options.stage, study.trials)
        ledger = Ledger(study, options.seed, folder, options.ledger, tuple(wanted), folder.name)
        dataset = data.load(study.data.name, options.data_root, options.cache)
        ledger.check_data(dataset.digest)
        schedule = Schedule(ledger, wanted)
        console.print(f"[bold]{folder.name}[/]: {schedule.done()} of {schedule.total} done")
        for stage, end in schedule.exhausted.items():
            console.print(
                f"stage {stage} has {end} trials instead of {wanted[stage]}: the space has "
                f"{len(ledger.configs or ())} configs, and none runs twice",
                soft_wrap=True,
            )
        if not schedule.total:
            raise InputError(f"{folder.name}: no complete trial of explore or search to confirm")
        place = options.tracking_uri, options.experiment, options.storage / "artifacts"
        tracker = Tracker(ledger, folder.name, *place)
        bug = None
        try:
            if not schedule.finished or any(e.refused for e in ledger.entries(*wanted)):
                bug = _run(console, options, ledger, schedule, tracker, folder)
        finally:
            ledger.release_all()
            entries = ledger.entries()
            # A sweep that failed before its first trial leaves nothing behind.
            unsent = entries and tracker.close(
                entries, schedule.finished, _summary(ledger, schedule)
            )
        _summarise(console, options, ledger, schedule)
    if bug and "\n" not in bug:
        raise click.ClickException(f"{bug}{_GO_ON}")
    if bug:
        raise click.ClickException(f"stopped by a bug in a trial:\n{bug}")
    if unsent:
        raise click.ClickException(f"{unsent}; the same command sends what is missing")
    return 0 if schedule.finished else 1


def _run(
    console: Console,
    options: Options,
    ledger: Ledger,
    schedule: Schedule,
    tracker: Tracker,
    folder: Path,
) -> str | None:
    """Run the trials that are missing. Returns the traceback of a bug that stopped them."""
    with ThreadPoolExecutor(1) as side:
        # While Ray starts, since most of its seconds are for imports.
        side.submit(predict_trial_memory, ledger.study.run_config({}, options.seed))
        address = cluster.running()
        with _ready(address, console, options, ledger.study, folder) as trainable:
            devices = find_devices(options.cpus_per_trial)
            placement = Placement(devices, options.cpus_per_trial, options.memory_budget)
            ledger.reopen(placement.fits)
            progress = Progress(console, ledger, schedule)
            listeners = [tracker.send, progress.update]
            search = LedgerSearch(schedule, ledger, placement, listeners)
            recorder = Recorder(search, refused=lambda: tracker.refused)
            concurrent = options.max_concurrent
            if concurrent is None and address is None and placement.slots:
                concurrent = placement.slots + 1  # one is proposed while the others train
            # A cluster grows by what waits: where so many are to run at once, so many wait.
            pending = options.max_concurrent if address else None
            os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", str(pending or _PENDING))
            with progress:
                places = {"data_root": options.data_root, "checkpoints": folder / "checkpoints"}
                trainable = tune.with_parameters(trainable, **places, cache=options.cache)
                _tuner(search, recorder, concurrent, trainable, folder).fit()
    return recorder.bug


def _tuner(
    search: LedgerSearch,
    recorder: Recorder,
    concurrent: int | None,
    trainable: type[tune.Trainable],
    folder: Path,
) -> tune.Tuner:
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=search,
            num_samples=-1,  # until the search says that it is finished
            max_concurrent_trials=concurrent,
            reuse_actors=True,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name="ray",
            storage_path=str(folder),
            callbacks=[Watch(recorder)],
            stop=recorder,
            failure_config=tune.FailureConfig(max_failures=_LOST_MACHINES),
            # Trials keep their own, where the next driver finds them.
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    )


@contextmanager
def _ready(
    address: str | None, console: Console, options: Options, study: Study, folder: Path
) -> Iterator[type[MetaTrainable]]:
    """Connect to Ray, and make sure that trials can run wherever it may put them.

    Yields what they run. A cluster that was there before is waited for and looked at; this machine
    alone needs neither.

    Raises:
        InputError: something is wrong with a node, or no trial fits on this machine.
    """
    with cluster.connected(address):
        if address is None:
            _check_cpus(options.cpus_per_trial)
            yield MetaTrainable
            return
        cluster.wait_for_nodes(console, options.cpus_per_trial)
        digest = data.load(study.data.name, options.data_root, options.cache).digest
        with marked(folder) as marker:
            wanted = study.data.name, digest, options.data_root, options.cache
            question = Question(software(), marker, *wanted)
            check_nodes(console, question, options.cpus_per_trial)
            yield guarded(MetaTrainable, question)


def _check_cpus(cpus: int) -> None:
    nodes = cluster.alive_nodes()
    if not cluster.trial_nodes(nodes, cpus):
        most = max(int(node["Resources"].get("CPU", 0)) for node in nodes)
        raise InputError(f"--cpus-per-trial {cpus}: this machine has {most}")


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    """Say in one line that the storage is full, or went away."""
    try:
        yield
    except (OSError, TuneError) as error:
        # Tune wraps what is raised while it handles a result.
        cause = error.__context__ if isinstance(error, TuneError) else error
        if not isinstance(cause, OSError) or cause.errno not in STORAGE_ERRORS:
            raise
        raise click.ClickException(f"{folder}: {cause.strerror}{_GO_ON}") from None


_GO_ON = "; the same command goes on from here"


def _folder(storage: Path, name: str, fresh: bool) -> Path:
    """The folder of the latest version of a sweep, or of a new one."""
    try:
        versions = [1] if (storage / name).exists() else []
        for path in storage.glob(f"{name}-v*"):
            found = re.fullmatch(r"-v(\d+)", path.name.removeprefix(name))
            versions += [int(found[1])] if found else []
        version = max(versions, default=0) + 1 if fresh else max(versions, default=1)
        folder = storage / (name if version == 1 else f"{name}-v{version}")
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{storage}: cannot be written ({error.strerror})") from None
    return folder


def _trial_name(trial: Trial) -> str:
    return str(trial.config["name"])


def _summary(ledger: Ledger, schedule: Schedule) -> dict[str, float]:
    values: dict[str, float] = {"trials": schedule.done()}
    best = ledger.ranking()
    if best and best[0].result:
        key = ledger.objective.metric.key
        values[key] = best[0].result["metrics"][key]
    return values


def _summarise(console: Console, options: Options, ledger: Ledger, schedule: Schedule) -> None:
    best = [] if "grid" in schedule.quotas else ledger.ranking()
    if best:
        confirmed = ledger.finished("confirm")
        console.print(best_table(ledger.objective.metric, best[:3], confirmed))
    entries = ledger.finished(*schedule.quotas)
    for status in ("pruned", "diverged", "out_of_memory"):
        count = sum(entry.status == status for entry in entries)
        if count:
            console.print(f"{count} {'trial' if count == 1 else 'trials'} {_SAID[status]}")
    if schedule.lost_cells:
        console.print(
            f"cells of the grid where nothing that was tried ended well: {schedule.lost_cells}"
        )
    if not schedule.finished:
        console.print(f"{schedule.done()} of {schedule.total} done; the same command goes on")
    where, store = "", shlex.quote(without_credentials(options.tracking_uri))
    if options.tracking_uri != default_uri(options.storage):
        where = f" --tracking-uri {store}"
    elif options.storage != Path("runs").resolve():
        where = f" --storage {shlex.quote(str(options.storage))}"
    name = ledger.study.name
    further = f"export {name} --top 3 --out best.yaml" if best else f"report {name} --out report"
    for command in (
        f"python -m analysis trials {name}{where}",
        f"python -m analysis {further}{where}",
        f"mlflow ui --backend-store-uri {store}",
    ):
        console.print(command, soft_wrap=True, markup=False)


_SAID = {
    "pruned": "stopped early",
    "diverged": "diverged",
    "out_of_memory": "ran out of memory or would have",
}


def quiet() -> None:
    """Keep the chatter of libraries out of the way of the live view."""
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("ray").setLevel(logging.ERROR)
    # They say of trials that wait for the next start that they did not complete, and of a full
    # disk what is said in one line below.
    for name in ("ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
