"""Run a sweep from beginning to end."""

import logging
import re
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from ray import tune
from ray.tune.error import TuneError
from ray.tune.experiment import Trial
from rich.console import Console

from memmeta import checkpoint, data
from memmeta.checkpoint import Saved
from memmeta.data.dataset import Dataset, check_episodes
from memmeta.errors import FailedError, InputError, cannot_write
from memmeta.memory.prediction import predict_trial_memory
from memmeta.system.stopping import STOP, postponed
from sweeps.engine.display.progress import Progress
from sweeps.engine.display.summary import best_trial, print_summary, summary_metrics
from sweeps.engine.execution import cluster
from sweeps.engine.execution.callbacks import ResultRecorder, Shutdown, Silence, SweepCallback
from sweeps.engine.execution.cluster import CONTINUE_HINT
from sweeps.engine.execution.nodes import alive_nodes, trial_nodes, wait_for_nodes
from sweeps.engine.execution.own_code import OwnCode, own_code
from sweeps.engine.execution.placement import Placement, find_devices
from sweeps.engine.execution.preflight import DriverView, check_nodes, guarded, marked, software
from sweeps.engine.execution.search import LedgerSearch, Listener
from sweeps.engine.execution.trainable import MetaTrainable
from sweeps.engine.ledger.confirmed import best_confirmed
from sweeps.engine.ledger.folder import STORAGE_ERRORS, SweepFolder
from sweeps.engine.ledger.ledger import Ledger
from sweeps.engine.ledger.opening import sweep_lock
from sweeps.engine.ledger.schedule import Schedule, quotas
from sweeps.engine.options import Options
from sweeps.engine.stores.quiet import environment, log_levels, quiet_mlflow
from sweeps.engine.stores.store import AwayError, check_store
from sweeps.engine.study.outcome import TAGS
from sweeps.engine.study.samplers import check_sampler
from sweeps.engine.study.study import Study
from sweeps.engine.tracking.tracker import Tracker

_MAX_LOST_WORKERS = 3
"""How often a trial whose worker was lost is started again."""

_SHUTDOWN_SECONDS = 25
"""Time for stopping a sweep. Job schedulers kill processes after thirty seconds."""

_PENDING = 2
"""Trials that wait for resources. With only one, a large trial would hold up small ones."""


_LEVELS = {
    "optuna": logging.WARNING,
    "ray": logging.ERROR,
    # These report trials that wait for the next start as incomplete, and errors of the storage,
    # which the sweep reports in one line.
    "ray.tune": logging.CRITICAL,
    "ray.train": logging.CRITICAL,
    "mlflow.store.db.utils": logging.CRITICAL,
}
"""Levels of loggers whose messages would disturb the live view."""

_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # see memmeta.system.stopping
    "RAY_AIR_NEW_OUTPUT": "0",
}

_IN_USE = threading.Lock()
"""Held while a sweep runs in this process. A second one would share its connection to Ray."""


class Ended(NamedTuple):
    """How a sweep ended."""

    finished: bool
    """Whether all trials are done. If not, a signal has stopped the sweep, or the worker of a trial
    was lost too often."""
    run_id: str | None
    """The MLflow run of the sweep; None if no trial has started."""


def load_data(study: Study, options: Options) -> Dataset:
    """Load the data set of a study.

    Raises:
        InputError: the data set cannot be loaded, or is too small for the study's tasks.
    """
    dataset = study.data.load(options.data_root, options.cache)
    check_episodes(dataset, study.data.training_shape, study.data.evaluation_shape)
    return dataset


def load_others(study: Study, options: Options) -> dict[str, Dataset]:
    """Load the data sets of `Study.evaluate_on`, by name.

    Raises:
        InputError: one cannot be loaded, or its test split is too small for the study's tasks.
    """
    others = {name: data.load(name, options.data_root, options.cache) for name in study.evaluate_on}
    shape = study.data.evaluation_shape._replace(rotations=False)
    for dataset in others.values():
        dataset.episodes("test", shape, seed=0, indices=[])
    return others


def sweep(console: Console, study: Study, options: Options) -> Ended:
    """Run the trials that are missing, and print the best configs.

    Args:
        console: where to print.
        study: the study.
        options: how it runs.

    Raises:
        InputError: the data cannot be used, the sweep cannot continue, its stores cannot be opened,
            or another sweep runs in this process.
        FailedError: a bug in a trial or an error of the storage stopped the sweep, or not
            all results were sent to MLflow.
    """
    if not _IN_USE.acquire(blocking=False):
        raise InputError("another sweep is running in this process; use one process for each sweep")
    try:
        with quietly():
            dataset, others = load_data(study, options), load_others(study, options)
            with suppress(AwayError):  # results are sent once the store works again
                check_store(options.tracking_uri)
            return _sweep(console, study, options, dataset, others)
    finally:
        _IN_USE.release()


def _sweep(
    console: Console,
    study: Study,
    options: Options,
    dataset: Dataset,
    others: Mapping[str, Dataset],
) -> Ended:
    digests = {name: used.digest for name, used in {study.data.name: dataset, **others}.items()}
    path = _sweep_folder(options.storage, study.sweep_name(options.seed), options.fresh)
    with _storage_errors_in_one_line(path), sweep_lock(path):
        stage_quotas = quotas(study, options.stage, study.trials)
        try:
            folder = SweepFolder.claimed(path)
        except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
            obstacle = error.filename2 or error.filename  # a failed rename names both
            raise InputError(f"{obstacle}: blocks the sweep's files ({error.strerror})") from None
        ledger = Ledger(
            study,
            options.seed,
            path,
            url=options.ledger,
            stages=tuple(stage_quotas),
            name=path.name,
            when_available=partial(folder.when_available, say=partial(_print_plain, console)),
        )
        ledger.check_data(digests)
        if "search" in stage_quotas:
            check_sampler(study.sampler, study.space, ledger.objective.directions())
        code = own_code(study, path)
        _print_changed_code(console, ledger, code)
        schedule = Schedule(ledger, stage_quotas)
        _reopen_unscored(console, ledger, schedule)
        _print_start(console, path.name, ledger, schedule)
        if not schedule.total and not schedule.exhausted:
            raise InputError(f"{path.name}: no complete trial of explore or search to confirm")
        tracker = Tracker(
            ledger,
            path.name,
            options.tracking_uri,
            options.experiment,
            options.storage / "artifacts",
            is_away=lambda: not folder.is_here(),
            planned=len(ledger.finished()) + schedule.total - schedule.done(),
        )
        bug = None
        try:
            if not schedule.finished or any(e.refused for e in ledger.entries(*stage_quotas)):
                bug = _run(console, options, digests, code, ledger, schedule, tracker, folder)
        finally:
            ledger.release_all()
            entries = ledger.entries()
            metrics, best = summary_metrics(ledger, schedule), best_trial(ledger)
            # A sweep that failed before its first trial leaves nothing in MLflow.
            unsent = tracker.close(entries, schedule.finished, metrics, best) if entries else None
        print_summary(console, options, ledger, schedule, tracker.addresses)
        if tracker.addresses and schedule.finished and not unsent:
            _log_model(console, dataset, ledger, tracker, folder)
    if bug and "\n" not in bug:
        raise FailedError(f"{bug}{CONTINUE_HINT}")
    if bug:
        raise FailedError(f"stopped by a bug in a trial:\n{bug}")
    if unsent:
        raise FailedError(f"{unsent}; run the sweep again to send the rest")
    return Ended(schedule.finished, tracker.run_id)


def _log_model(
    console: Console, dataset: Dataset, ledger: Ledger, tracker: Tracker, folder: SweepFolder
) -> None:
    """Log the model of the best confirmed trial, if there is one."""
    trial = best_confirmed(ledger.entries("confirm"), ledger.objective.metric)
    if trial is None:
        return

    def read() -> Saved:
        saved = checkpoint.load(folder.checkpoint(trial.key), trial.run.import_paths)
        # Checkpoints of earlier versions lack the inputs.
        return saved._replace(inputs=saved.inputs or dataset.inputs)

    try:
        address = tracker.log_model(trial, read)
    except InputError as error:
        _print_plain(console, f"the model of {trial.name} is not in MLflow: {error.message}")
        return
    _print_plain(console, f"model of {trial.name}:  {address}")


def _reopen_unscored(console: Console, ledger: Ledger, schedule: Schedule) -> None:
    """Let confirmed trials of an earlier start be scored on the data sets that were added since."""
    names = ", ".join(ledger.study.evaluate_on)
    if "grid" in schedule.quotas and names:
        console.print(f"not scored on {names}: only stage confirm is", soft_wrap=True)
    unscored = schedule.unscored
    if unscored:
        console.print(
            f"complete trials of stage confirm to score on {names}: {len(unscored)}",
            soft_wrap=True,
        )
        ledger.reopen(entry.slot for entry in unscored)


def _print_start(console: Console, name: str, ledger: Ledger, schedule: Schedule) -> None:
    console.print(f"[bold]{name}[/]: {schedule.done()} of {schedule.total} done")
    for stage, end in schedule.exhausted.items():
        console.print(
            f"stage {stage} ends after {end} of {schedule.quotas[stage]} trials: explore and "
            f"search run each of the space's {len(ledger.configs or ())} configs once",
            soft_wrap=True,
        )


def _print_changed_code(console: Console, ledger: Ledger, code: OwnCode) -> None:
    """Say that own code is not that of earlier trials. It may change, as memmeta's code may."""
    before = {entry.result.get("code") for entry in ledger.entries() if entry.result}
    if code.digest and before - {code.digest, None}:
        console.print(
            "the code of this study has changed since earlier trials: each trial records its own "
            f"({TAGS.code}). If the change affects numbers, begin a new version with --fresh",
            soft_wrap=True,
        )


def _run(
    console: Console,
    options: Options,
    digests: Mapping[str, str],
    code: OwnCode,
    ledger: Ledger,
    schedule: Schedule,
    tracker: Tracker,
    folder: SweepFolder,
) -> str | None:
    """Run the trials that are missing. Returns the message of a bug that stopped them."""
    with ThreadPoolExecutor(1) as executor:
        # The first prediction takes seconds, mostly for imports. Meanwhile Ray starts.
        executor.submit(predict_trial_memory, ledger.study.run_config({}, options.seed))
        address = cluster.find_cluster()
        with _ready(address, console, options, digests, code, folder.path) as trainable:
            devices = find_devices(options.cpus_per_trial)
            placement = Placement(devices, options.cpus_per_trial, options.memory_budget)
            refused = (entry for entry in ledger.entries() if entry.refused)
            ledger.reopen(entry.slot for entry in refused if placement.fits(entry.run))
            progress = Progress(console, ledger, schedule)
            listeners: list[Listener] = [tracker.send, progress.update]
            search = LedgerSearch(schedule, ledger, placement, listeners)
            shutdown = Shutdown(partial(_ask_to_save, console, folder))
            recorder = ResultRecorder(search, lambda: tracker.refused, shutdown)
            concurrent = options.max_concurrent
            if concurrent is None and address is None and placement.concurrency:
                concurrent = placement.concurrency + 1  # one is proposed while the others train
            # A cluster starts machines for waiting trials, so let as many wait as should run.
            pending = (options.max_concurrent if address else None) or _PENDING
            with (
                progress,
                TemporaryDirectory(prefix="memmeta-tune-") as unused,
                environment({"TUNE_MAX_PENDING_TRIALS_PG": str(pending)}),
            ):
                trainable = tune.with_parameters(
                    trainable,
                    data_root=options.data_root,
                    folder=folder,
                    cache=options.cache,
                    code=code,
                )
                say = partial(_print_plain, console)
                wait_for_storage = partial(folder.when_available, lambda: None, say)
                callback = SweepCallback(recorder, wait_for_storage)
                tuner = _tuner(search, callback, concurrent, trainable, unused)
                with postponed(_SHUTDOWN_SECONDS):
                    tuner.fit()
    return recorder.bug


def _print_plain(console: Console, text: str) -> None:
    """Print a line without markup and wrapping, since paths may be long and contain brackets."""
    console.print(text, soft_wrap=True, markup=False)


def _ask_to_save(console: Console, folder: SweepFolder) -> None:
    folder.ask_to_save()
    text = f"{STOP.by}: running trials save themselves ({STOP.by} again: stop at once)"
    _print_plain(console, text)


def _tuner(
    search: LedgerSearch,
    callback: SweepCallback,
    concurrent: int | None,
    trainable: type[tune.Trainable],
    unused: str,
) -> tune.Tuner:
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=search,
            num_samples=-1,  # until the search returns FINISHED
            max_concurrent_trials=concurrent,
            reuse_actors=True,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name="ray",
            storage_path=unused,  # Tune's own files are needed for `Tuner.restore` only
            callbacks=[callback],
            stop=callback.recorder,
            failure_config=tune.FailureConfig(max_failures=_MAX_LOST_WORKERS),
            # Trials save their own checkpoints, where the next driver finds them.
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            progress_reporter=Silence(),
            verbose=0,
        ),
    )


@contextmanager
def _ready(
    address: str | None,
    console: Console,
    options: Options,
    digests: Mapping[str, str],
    code: OwnCode,
    folder: Path,
) -> Iterator[type[MetaTrainable]]:
    """Connect to Ray, and check that trials can run on every node.

    Yields the trainable. An existing cluster is checked, after its first machine has started. This
    machine alone needs no check.

    Raises:
        InputError: a node has problems, or no trial fits on this machine.
    """
    with cluster.connected(address):
        if address is None:
            _check_cpus(options.cpus_per_trial)
            yield MetaTrainable
            return
        # Somebody may have started it on this machine with `ray start`.
        hint = "RAY_ADDRESS=local: this machine alone"
        console.print(f"on the Ray cluster at {address} ({hint})", soft_wrap=True)
        wait_for_nodes(console, options.cpus_per_trial)
        with marked(folder) as marker:
            view = DriverView(
                software(),
                marker,
                digests,
                options.data_root,
                options.cache,
                code,
            )
            check_nodes(console, view, options.cpus_per_trial)
            yield guarded(MetaTrainable, view)


def _check_cpus(cpus: int) -> None:
    nodes = alive_nodes()
    if not trial_nodes(nodes, cpus):
        most = max(int(node["Resources"].get("CPU", 0)) for node in nodes)
        raise InputError(f"{cpus} CPUs per trial: this machine has {most}")


@contextmanager
def _storage_errors_in_one_line(folder: Path) -> Iterator[None]:
    """Re-raise errors of a full disk or a lost file system as a one-line FailedError."""
    try:
        yield
    except (OSError, TuneError) as error:
        # Tune wraps errors that are raised while it handles a result.
        cause = error.__context__ if isinstance(error, TuneError) else error
        is_away = not folder.exists()
        if not isinstance(cause, OSError) or not (is_away or cause.errno in STORAGE_ERRORS):
            raise
        raise FailedError(f"{folder}: {cause.strerror}{CONTINUE_HINT}") from None


def _sweep_folder(storage: Path, name: str, fresh: bool) -> Path:
    """The folder of the latest version of a sweep, or of a new version if `fresh`."""
    try:
        versions = [1] if (storage / name).exists() else []
        for path in storage.glob(f"{name}-v*"):
            match = re.fullmatch(r"-v(\d+)", path.name.removeprefix(name))
            versions += [int(match[1])] if match else []
        version = max(versions, default=0) + 1 if fresh else max(versions, default=1)
        folder = storage / (name if version == 1 else f"{name}-v{version}")
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(storage, error) from None
    return folder


def _trial_name(trial: Trial) -> str:
    return str(trial.config["name"])


@contextmanager
def quietly() -> Iterator[None]:
    """Silence the messages of libraries in the block."""
    with log_levels(_LEVELS), environment(_ENVIRONMENT), quiet_mlflow():
        yield
