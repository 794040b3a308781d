"""A sweep from beginning to end."""

import logging
import os
import re
import shlex
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import optuna
from pydantic import ByteSize
from ray import tune
from ray.tune.error import TuneError
from ray.tune.experiment import Trial
from rich.console import Console

from memmeta.data.dataset import Dataset
from memmeta.errors import InputError
from memmeta.memory.prediction import predict_trial_memory
from memmeta.system.stopping import STOP, postponed
from sweeps.engine.display.progress import Progress
from sweeps.engine.display.table import best_table, unsolved
from sweeps.engine.execution import cluster
from sweeps.engine.execution.cluster import GO_ON
from sweeps.engine.execution.placement import Placement, find_devices
from sweeps.engine.execution.preflight import Question, check_nodes, guarded, marked, software
from sweeps.engine.execution.search import Farewell, LedgerSearch, Recorder, Watch
from sweeps.engine.execution.trainable import STORAGE_ERRORS, MetaTrainable
from sweeps.engine.ledger.folder import SweepFolder
from sweeps.engine.ledger.ledger import Ledger, only_one
from sweeps.engine.ledger.schedule import Schedule, quotas
from sweeps.engine.options import Options
from sweeps.engine.stores.masking import masked
from sweeps.engine.stores.store import default_uri, in_database
from sweeps.engine.study.study import Study
from sweeps.engine.tracking.tracker import Tracker

_LOST_MACHINES = 3
"""How often a trial whose worker died is started again."""

_FAREWELL = 25
"""Seconds in which a sweep that was asked to stop does: schedulers kill after thirty."""

_PENDING = 2
"""Trials that wait for room where their sizes differ: so a big one does not hold up small ones."""


def sweep(console: Console, study: Study, options: Options, dataset: Dataset) -> int:
    """Run what is still to be run, and print the best configs. Returns the exit code.

    Args:
        console: where to.
        study: what is run.
        options: how.
        dataset: the study's.

    Raises:
        InputError: the sweep cannot be gone on with, or its stores cannot be opened.
    """
    folder = _folder(options.storage, study.sweep_name(options.seed), options.fresh)
    with _disk(folder), only_one(folder):
        wanted = quotas(study, options.stage, study.trials)
        try:
            own = SweepFolder.claimed(folder)
        except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
            raise InputError(f"{error.filename}: in the way ({error.strerror})") from None
        steadily = partial(own.steadily, say=partial(_say, console))
        of = study, options.seed, folder, options.ledger, tuple(wanted), folder.name
        ledger = Ledger(*of, steadily=steadily)
        ledger.check_data(dataset.digest)
        schedule = Schedule(ledger, wanted)
        console.print(f"[bold]{folder.name}[/]: {schedule.done()} of {schedule.total} done")
        for stage, end in schedule.exhausted.items():
            console.print(
                f"stage {stage} ends after {end} of {wanted[stage]} trials: explore and search run "
                f"each of the space's {len(ledger.configs or ())} configs once",
                soft_wrap=True,
            )
        if not schedule.total and not schedule.exhausted:
            raise InputError(f"{folder.name}: no complete trial of explore or search to confirm")
        place = options.tracking_uri, options.experiment, options.storage / "artifacts"
        tracker = Tracker(ledger, folder.name, *place, is_away=lambda: not own.is_here())
        bug = None
        try:
            if not schedule.finished or any(e.refused for e in ledger.entries(*wanted)):
                bug = _run(console, options, dataset, ledger, schedule, tracker, own)
        finally:
            ledger.release_all()
            entries = ledger.entries()
            # A sweep that failed before its first trial leaves nothing behind.
            summary = _summary(ledger, schedule)
            unsent = tracker.close(entries, schedule.finished, summary) if entries else None
        _summarise(console, options, ledger, schedule)
    if bug and "\n" not in bug:
        raise click.ClickException(f"{bug}{GO_ON}")
    if bug:
        raise click.ClickException(f"stopped by a bug in a trial:\n{bug}")
    if unsent:
        raise click.ClickException(f"{unsent}; the same command sends what is missing")
    if STOP.requested:
        return STOP.exit_code
    return 0 if schedule.finished else 1


def _run(
    console: Console,
    options: Options,
    dataset: Dataset,
    ledger: Ledger,
    schedule: Schedule,
    tracker: Tracker,
    folder: SweepFolder,
) -> str | None:
    """Run the trials that are missing. Returns the traceback of a bug that stopped them."""
    with ThreadPoolExecutor(1) as side:
        # While Ray starts, since most of its seconds are for imports.
        side.submit(predict_trial_memory, ledger.study.run_config({}, options.seed))
        address = cluster.running()
        with _ready(address, console, options, dataset, folder.path) as trainable:
            devices = find_devices(options.cpus_per_trial)
            placement = Placement(devices, options.cpus_per_trial, options.memory_budget)
            ledger.reopen(placement.fits)
            progress = Progress(console, ledger, schedule)
            listeners = [tracker.send, progress.update]
            search = LedgerSearch(schedule, ledger, placement, listeners)
            farewell = Farewell(partial(_say_farewell, console, folder))
            recorder = Recorder(search, lambda: tracker.refused, farewell)
            concurrent = options.max_concurrent
            if concurrent is None and address is None and placement.slots:
                concurrent = placement.slots + 1  # one is proposed while the others train
            # A cluster grows by what waits: where so many are to run at once, so many wait.
            pending = options.max_concurrent if address else None
            os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", str(pending or _PENDING))
            with progress, TemporaryDirectory(prefix="memmeta-tune-") as unused:
                places = {"data_root": options.data_root, "folder": folder}
                trainable = tune.with_parameters(trainable, **places, cache=options.cache)
                wait_for_storage = partial(folder.steadily, lambda: None, partial(_say, console))
                watch = Watch(recorder, wait_for_storage)
                tuner = _tuner(search, watch, concurrent, trainable, unused)
                with postponed(_FAREWELL):
                    tuner.fit()
    return recorder.bug


def _say(console: Console, text: str) -> None:
    """Print a line as it is: paths may have brackets, and be longer than the terminal is wide."""
    console.print(text, soft_wrap=True, markup=False)


def _say_farewell(console: Console, folder: SweepFolder) -> None:
    folder.ask_to_save()
    text = f"{STOP.by}: the trials that run save themselves (again {STOP.by}: at once)"
    _say(console, text)


def _tuner(
    search: LedgerSearch,
    watch: Watch,
    concurrent: int | None,
    trainable: type[tune.Trainable],
    unused: str,
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
            storage_path=unused,  # what Tune writes is for `Tuner.restore`
            callbacks=[watch],
            stop=watch.recorder,
            failure_config=tune.FailureConfig(max_failures=_LOST_MACHINES),
            # Trials keep their own, where the next driver finds them.
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    )


@contextmanager
def _ready(
    address: str | None, console: Console, options: Options, dataset: Dataset, folder: Path
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
        with marked(folder) as marker:
            wanted = dataset.name, dataset.digest, options.data_root, options.cache
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
        away = not folder.exists()
        if not isinstance(cause, OSError) or not (away or cause.errno in STORAGE_ERRORS):
            raise
        raise click.ClickException(f"{folder}: {cause.strerror}{GO_ON}") from None


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
    if "grid" not in schedule.quotas:
        for line in _feasibility(ledger, any_best=bool(best)):
            console.print(line, soft_wrap=True)
    entries = ledger.finished(*schedule.quotas)
    for status in ("pruned", "diverged", "out_of_memory"):
        count = sum(entry.status == status for entry in entries)
        if count:
            console.print(f"{count} {'trial' if count == 1 else 'trials'} {_SAID[status]}")
    if not_solved := unsolved(entries):
        console.print(not_solved, soft_wrap=True)
    if schedule.lost_cells:
        console.print(
            f"cells of the grid where nothing that was tried ended well: {schedule.lost_cells}"
        )
    if not schedule.finished:
        console.print(f"{schedule.done()} of {schedule.total} done; the same command goes on")
    for command in _further(options, ledger.study.name, bool(best)):
        console.print(command, soft_wrap=True, markup=False)


def _further(options: Options, study: str, ranked: bool) -> Iterator[str]:
    """Commands that look further into a sweep, and where its runs are shown."""
    where, store = "", shlex.quote(masked(options.tracking_uri))
    if options.tracking_uri != default_uri(options.storage):
        where = f" --tracking-uri {store}"
    elif options.storage != Path("runs").resolve():
        where = f" --storage {shlex.quote(str(options.storage))}"
    yield f"python -m analysis trials {study}{where}"
    further = (
        f"export {study} --top 3 --out best.yaml" if ranked else f"report {study} --out report"
    )
    yield f"python -m analysis {further}{where}"
    yield f"mlflow ui --backend-store-uri {store}" if in_database(options.tracking_uri) else store


def _feasibility(ledger: Ledger, any_best: bool) -> Iterator[str]:
    """How many trials can be the best one, where not all can."""
    complete = [e for e in ledger.finished("explore", "search") if e.status == "complete"]
    limit = ledger.study.memory_limit
    if complete and limit is not None:
        feasible = sum(ledger.objective.feasible(e.result or {}) for e in complete)
        size = ByteSize(limit).human_readable(separator=" ")
        yield f"{feasible} of {len(complete)} complete trials stay within the memory limit, {size}"
    if not any_best:
        within = " within the memory limit" if limit is not None else ""
        yield f"no best config: stages explore and search have no complete trial{within}"


_SAID = {
    "pruned": "stopped early",
    "diverged": "diverged",
    "out_of_memory": "ran out of memory or would have",
}


def quiet() -> None:
    """Keep the chatter of libraries out of the way of the live view."""
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # see memmeta.system.stopping
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("ray").setLevel(logging.ERROR)
    # They say of trials that wait for the next start that they did not complete, and of storage
    # that is full or away what is said in one line.
    for name in ("ray.tune", "ray.train", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
