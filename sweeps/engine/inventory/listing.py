"""List the sweeps of a storage folder and of its MLflow store."""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from memmeta.errors import InputError, cannot_read, did_you_mean
from sweeps.engine.ledger.opening import IDENTITY_FILE, is_running, read_identity
from sweeps.engine.stores.store import (
    check_database,
    connect,
    database_file,
    find_runs,
    store_errors_in_one_line,
)
from sweeps.engine.study.outcome import FINAL, TAGS, sequence

if TYPE_CHECKING:
    from mlflow.entities import Run

State = Literal["running", "finished", "stopped"]

_RECORDS = (IDENTITY_FILE, "journal.log")
"""Files by which a sweep's folder is recognised."""

_BUDGET_AND_SEED = re.compile(r"-\d+(steps|tasks)-seed\d+(-v\d+)?$")
"""The end of a sweep's name, after the name of its study."""


@dataclass(frozen=True)
class StoredSweep:
    """A sweep, as found in a storage folder, in MLflow, or in both."""

    name: str
    """Name of its folder, or its name in MLflow if the storage has no folder of it."""
    folder: Path | None
    """Its folder; None if the storage has none."""
    runs: "Sequence[Run]"
    """Its runs in MLflow: one for each experiment that it was written to."""
    trials: "Sequence[Run]" = field(repr=False)
    """The MLflow runs of the trials of `run`."""

    @property
    def study(self) -> str:
        """The name of its study."""
        if self.run:
            return str(self.run.data.tags[TAGS.study])
        return _BUDGET_AND_SEED.sub("", self.name)

    @property
    def run(self) -> "Run | None":
        """The run that was written last; None if there is none."""
        return max(self.runs, key=lambda run: sequence(run.data.tags), default=None)

    @property
    def state(self) -> State:
        """`finished` if all trials are done. `stopped` sweeps continue with their command."""
        status = self.run.info.status if self.run else None
        if self.folder is not None and is_running(self.folder):
            return "running"
        if status == "RUNNING" and self.folder is None:
            return "running"
        return "finished" if status == "FINISHED" else "stopped"

    @property
    def done(self) -> int:
        """Number of trials with their final result."""
        return sum(trial.data.tags.get(TAGS.status) in FINAL for trial in self.trials)

    @property
    def planned(self) -> int | None:
        """Number of trials of the finished sweep; None for sweeps of older versions."""
        text = self.run.data.tags.get(TAGS.planned, "") if self.run else ""
        return int(text) if text.isdecimal() else None

    @property
    def size(self) -> int:
        """Bytes of the files in its folder."""
        if self.folder is None:
            return 0
        files = (Path(parent, name) for parent, _, names in os.walk(self.folder) for name in names)
        return sum(status.st_size for status in _statuses(files))

    @property
    def last_active(self) -> datetime:
        """When it last ran."""
        times = [0.0]
        if self.folder:
            # Looking whether a sweep runs changes the time of its lock.
            files = (path for path in self.folder.glob("*") if path.name != "lock")
            times += [status.st_mtime for status in _statuses(files)]
        if self.run:
            times.append((self.run.info.end_time or self.run.info.start_time) / 1000)
        return datetime.fromtimestamp(max(times), UTC)


def stored_sweeps(storage: Path, uri: str) -> list[StoredSweep]:
    """The sweeps of a storage folder and of an MLflow store, by name.

    Args:
        storage: the folder. It may be missing.
        uri: the store. It may be missing if it is a database file.

    Raises:
        InputError: the folder or the store cannot be read.
    """
    runs, trials = _runs(uri)
    file = database_file(uri)
    is_own_store = file is not None and file.parent == storage
    sweeps = []
    for folder in _folders(storage):
        own = [run for run in runs if _belongs(run, folder, is_own_store)]
        runs = [run for run in runs if run not in own]
        sweep = StoredSweep(folder.name, folder, own, [])
        sweeps.append(replace(sweep, trials=trials[sweep.run.info.run_id] if sweep.run else []))
    sweeps += [
        StoredSweep(run.data.tags[TAGS.sweep], None, [run], trials[run.info.run_id]) for run in runs
    ]
    return sorted(sweeps, key=lambda sweep: sweep.name)


def find_sweep(sweeps: Sequence[StoredSweep], name: str, where: str) -> StoredSweep:
    """The sweep called `name`, or the only sweep of the study called `name`.

    If there are several sweeps of that name, the one with a folder.

    Args:
        sweeps: the sweeps to choose from.
        name: its name, its study, or the id of its MLflow run.
        where: names the storage in messages.

    Raises:
        InputError: there is no such sweep, there are several in MLflow, or the study has several.
    """
    found = [sweep for sweep in sweeps if name in (sweep.name, _run_id(sweep))]
    found = [sweep for sweep in found if sweep.folder] or found
    if not found:
        found = [sweep for sweep in sweeps if sweep.study == name]
        several = dict.fromkeys(sweep.name for sweep in found)
        if len(several) > 1:
            raise InputError(f"{name}: a study with several sweeps; name one: {', '.join(several)}")
    if not found:
        names = [sweep.name for sweep in sweeps]
        raise InputError(f"{name}: no such sweep in {where}{did_you_mean(name, names)}")
    if len(found) > 1:
        ids = ", ".join(map(str, map(_run_id, found)))
        raise InputError(f"{name}: several sweeps in MLflow; give the id of a run: {ids}")
    return found[0]


def _run_id(sweep: StoredSweep) -> str | None:
    return str(sweep.run.info.run_id) if sweep.run else None


def _folders(storage: Path) -> list[Path]:
    """The folders of sweeps."""
    try:
        folders = sorted(storage.iterdir()) if storage.is_dir() else []
    except OSError as error:
        raise cannot_read(storage, error) from None
    return [
        folder for folder in folders if any(os.path.lexists(folder / part) for part in _RECORDS)
    ]


def _belongs(run: "Run", folder: Path, is_own_store: bool) -> bool:
    """Whether the run of a sweep is that of the sweep in `folder`.

    A copy of a folder has the same identity, so the name must match as well. Runs of older versions
    have no identity: in the store of the storage folder, the name is enough.
    """
    name = run.data.tags[TAGS.sweep].partition("#")[0]
    if name != folder.name:
        return False
    identity = run.data.tags.get(TAGS.identity)
    # A folder without an identity file gets a new identity here, which no run has.
    return is_own_store if identity is None else identity == read_identity(folder)


def _runs(uri: str) -> "tuple[list[Run], dict[str, list[Run]]]":
    """The runs of all sweeps, and the runs of their trials by the id of the sweep's run."""
    trials: defaultdict[str, list[Run]] = defaultdict(list)
    file = database_file(uri)
    if file is not None and not file.exists():
        return [], trials
    with store_errors_in_one_line(uri):
        if file is not None:
            check_database(file)
        client = connect(uri)
        for trial in find_runs(client, f"tags.`{TAGS.kind}` = 'trial'"):
            trials[trial.data.tags.get(TAGS.parent, "")].append(trial)
        return find_runs(client, f"tags.`{TAGS.kind}` = 'sweep'"), trials


def _statuses(paths: Iterable[Path]) -> Iterator[os.stat_result]:
    """The status of each file. Skips files that a running sweep removes meanwhile."""
    for path in paths:
        with suppress(OSError):
            yield path.lstat()
