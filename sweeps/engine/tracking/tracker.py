"""MLflow, written by the driver alone: a parent run a sweep, a child run a trial.

This module keeps nothing. It compares MLflow with the ledger and sends the difference: a server may
have missed it, or a killed driver may not have sent it.
"""

import itertools
import json
import math
import shlex
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from memmeta.errors import InputError
from memmeta.system import provenance
from sweeps.engine.ledger.ledger import Entry, Ledger
from sweeps.engine.stores import artifacts
from sweeps.engine.stores.masking import masked, reason
from sweeps.engine.stores.store import (
    AwayError,
    all_pages,
    connect,
    explained,
    find_runs,
    make_database,
)
from sweeps.engine.study.outcome import FINAL, TAGS, Stage

if TYPE_CHECKING:
    from mlflow.entities import Run

# As MLflow has them, which is slow to import.
_PARENT_TAG, _NOTE_TAG, _SOURCE_TAG = (
    TAGS.parent,
    "mlflow.note.content",
    "mlflow.source.name",
)

# Has the UI open on the table of runs rather than on its pages for language models.
_EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}

_ENDS = {**dict.fromkeys(FINAL, "FINISHED"), "interrupted": "KILLED", "failed": "FAILED"}
"""MLflow's word for how a trial ended."""

_COMPARED = 100
"""Trials in the link that compares them: an address has to stay within what browsers take."""

_HEAD_START = 8.0
"""Seconds that the workers have to start in, before MLflow's imports take a CPU."""

_LONGEST_PAUSE = 30.0
"""Seconds between two tries at most, when a server does not answer."""

_PATIENCE = 20.0
"""Seconds for which a server that does not answer is tried when the sweep is at its end."""

_LAST_PAUSE = 1.0
"""Seconds between two of those tries."""

_DELETED = "deleted"
"""As MLflow has it."""

_LONGEST_TAG = 5000
"""Characters that every MLflow store takes."""

_FACTS = ("message", "commit", "hardware", "threads", "gpus", "data_digest")
_MEMORY = ("peak", "predicted", "reserved")


class _Sent(NamedTuple):
    """The state of a trial in MLflow."""

    run_id: str
    status: str
    reports: int


class Tracker:
    """Writes the ledger to MLflow from a thread, so that a slow server cannot stall the sweep."""

    def __init__(
        self,
        ledger: Ledger,
        name: str,
        uri: str,
        experiment: str,
        files: Path,
        is_away: Callable[[], bool] = lambda: False,
    ) -> None:
        """Connect soon after there is something to write, in a thread, since that takes seconds.

        Args:
            ledger: the record of the sweep. Only the parts that the store lacks are sent.
            name: of the sweep.
            uri: of the MLflow store.
            experiment: its name there.
            files: folder for artifacts, where the store is a bare database.
            is_away: says that the sweep's storage is away, so that nothing may be written.
        """
        self._ledger = ledger
        self._name = self._title = name
        self._identity = ledger.identity
        self._settings = ledger.settings
        self._sent_settings = ""
        self._uri, self._experiment_name, self._files = uri, experiment, files
        self._is_away = is_away
        self._parent_id: str | None = None  # until the store is open
        self._sent: dict[tuple[Stage, int], _Sent] = {}
        self._waiting = {entry.place: entry for entry in ledger.entries()}
        self._changed = threading.Condition()
        self._closing = False
        self._deadline = math.inf
        self._problem: str | None = None
        self._refusal: InputError | None = None
        self._thread = threading.Thread(target=self._run, name="mlflow", daemon=True)

    @property
    def refused(self) -> bool:
        """Whether the store cannot be opened."""
        return self._refusal is not None

    def send(self, entry: Entry) -> None:
        """Queue a trial. It replaces an older state of the same trial in the queue."""
        if entry.stage not in self._settings:
            self._settings = self._ledger.settings
        with self._changed:
            self._waiting[entry.place] = entry
            self._wake()

    def close(
        self, entries: Iterable[Entry], finished: bool, summary: Mapping[str, float]
    ) -> str | None:
        """Write the rest of the queue, and end the sweep's run.

        Args:
            entries: all trials, as they are in the end.
            finished: whether the sweep is at its end.
            summary: metrics of the sweep.

        Returns:
            Why not all could be written, if so: it is when the same sweep is started again.

        Raises:
            InputError: the store cannot be opened.
        """
        with self._changed:
            self._waiting |= {entry.place: entry for entry in entries}
            self._closing = True
            self._wake()
        self._thread.join()
        if self._refusal:
            raise self._refusal
        if self._waiting or self._parent_id is None:
            return f"trials not in MLflow yet: {len(self._waiting)} ({self._problem})"
        try:
            self._end_parent(finished, summary)
        except Exception as error:
            return f"the sweep's summary is not in MLflow yet ({reason(error, self._uri)})"
        return None

    def _wake(self) -> None:
        if self._thread.ident is None:
            self._thread.start()
        self._changed.notify()

    def _run(self) -> None:
        """Open the store and write the queue, the oldest trial first.

        After a failure it tries again, with longer and longer pauses.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closing, timeout=_HEAD_START)
        pause = 0.0
        while self._has_work(pause):
            try:
                self._work(anew=pause > 0)
                pause = 0.0
            except Exception as error:
                # MLflow, SQLAlchemy and HTTP clients share no narrower base.
                if isinstance(error, InputError) and not isinstance(error, AwayError):
                    self._refusal = error
                    return
                self._problem = reason(error, self._uri)
                pause = min(_LONGEST_PAUSE, 2 * pause or 1.0)

    def _has_work(self, pause: float) -> bool:
        """Wait for work, and `pause` seconds if the last try failed.

        Returns:
            False if nothing is left, or the time for trying has passed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            if pause:
                self._changed.wait_for(lambda: self._closing, timeout=pause)
            if not self._closing:
                return True
            self._deadline = min(self._deadline, time.monotonic() + _PATIENCE)
        if pause:
            time.sleep(_LAST_PAUSE)
            return time.monotonic() < self._deadline
        return bool(self._waiting) or self._parent_id is None

    def _work(self, anew: bool) -> None:
        """Open the store if it is not open yet, or else write a trial."""
        if self._is_away():
            raise OSError("the storage is away")
        if self._parent_id is None:
            self._open()
            return
        self._send_settings(self._parent_id)
        with self._changed:
            place = next(iter(self._waiting))
            entry = self._waiting.pop(place)
        try:
            self._sync(entry, anew)
        except Exception:
            with self._changed:
                self._waiting.setdefault(place, entry)
            raise

    def _open(self) -> None:
        with explained(self._uri):
            make_database(self._uri)
            self._client = connect(self._uri)
            self._experiment_id = self._experiment()
            artifacts.follow(self._uri)
            parent_id = self._parent()
            self._sent = dict(map(_sent, self._children(parent_id)))
            self._parent_id = parent_id

    def _sync(self, entry: Entry, anew: bool) -> None:
        """Bring a trial's run up to date. A second call with the same state changes nothing."""
        if anew:
            # A run may have been begun although the answer did not come.
            assert self._parent_id
            self._sent = dict(map(_sent, self._children(self._parent_id)))
        sent = self._sent.get(entry.place)
        if sent and (sent.status, sent.reports) == (entry.status, _reports(entry)):
            return
        sent = sent or self._begin(entry)
        if sent.status not in ("running", entry.status):
            self._client.set_tag(sent.run_id, TAGS.message, "")  # of how it ended before
        if entry.status == "running" and sent.status != "running":
            self._client.update_run(sent.run_id, status="RUNNING")
        self._client.log_batch(sent.run_id, **_batch(entry, sent))
        if entry.status != "running":
            self._client.set_terminated(sent.run_id, _ENDS[entry.status])
        self._sent[entry.place] = _Sent(sent.run_id, entry.status, _reports(entry))

    def _begin(self, entry: Entry) -> _Sent:
        tags = self._tags("trial") | {
            _PARENT_TAG: self._parent_id,
            TAGS.stage: entry.stage,
            TAGS.index: str(entry.index),
            TAGS.key: entry.key,
            TAGS.config: entry.run.model_dump_json(),
            TAGS.status: "running",
            TAGS.reports: "0",
        }
        run = self._client.create_run(self._experiment_id, tags=tags, run_name=entry.name)
        return _Sent(run.info.run_id, "running", 0)

    def _experiment(self) -> str:
        """Find or make the experiment. Returns its id."""
        name = self._experiment_name
        found = self._client.get_experiment_by_name(name)
        if found is None:
            place, tags = artifacts.location(self._uri, self._files)
            try:
                return str(self._client.create_experiment(name, place, _EXPERIMENT_TAGS | tags))
            except Exception:
                # Another sweep that began at the same time may have made it.
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        if found.lifecycle_stage == _DELETED:
            raise self._deleted(
                f"experiment {name}", f"experiments restore -x {found.experiment_id}"
            )
        return str(found.experiment_id)

    def _parent(self) -> str:
        """Find or make the sweep's run. Returns its id."""
        sweeps = find_runs(self._client, f"tags.`{TAGS.kind}` = 'sweep'", deleted=True)
        own = [sweep for sweep in sweeps if self._is_own(sweep)]
        active = [sweep for sweep in own if sweep.info.lifecycle_stage != _DELETED]
        for sweep in own:
            if not active and self._children(sweep.info.run_id):
                restore = f"runs restore --run-id {sweep.info.run_id}"
                raise self._deleted(f"the run of sweep {self._name}", restore)
        if active:
            run_id = str(active[0].info.run_id)
            self._title = str(active[0].data.tags[TAGS.sweep])
            self._client.update_run(run_id, status="RUNNING")
            self._client.set_tag(run_id, TAGS.identity, self._identity)
        else:
            self._title = self._free_title(sweeps)
            tags = self._tags("sweep") | {TAGS.commit: provenance.commit()}
            run = self._client.create_run(self._experiment_id, tags=tags, run_name=self._title)
            run_id = str(run.info.run_id)
            self._adopt_orphans(run_id, {str(sweep.info.run_id) for sweep in sweeps})
        self._send_settings(run_id)
        self._client.set_tag(run_id, TAGS.sequence, str(_following(sweeps)))
        return run_id

    def _adopt_orphans(self, parent_id: str, sweep_ids: Collection[str]) -> None:
        """Take over trials of this sweep whose parent is none of `sweep_ids`: deleted for good."""
        query = f"tags.`{TAGS.identity}` = '{self._identity}' and tags.`{TAGS.kind}` = 'trial'"
        for run in self._search(query):
            if run.data.tags[_PARENT_TAG] not in sweep_ids and self._has(run):
                self._client.set_tag(run.info.run_id, _PARENT_TAG, parent_id)

    def _send_settings(self, run_id: str) -> None:
        """Write the settings of all stages so far. Further stages begin as the sweep runs."""
        settings = json.dumps(self._settings)
        if settings != self._sent_settings:
            self._client.set_tag(run_id, TAGS.settings, settings)
            self._sent_settings = settings

    def _is_own(self, sweep: "Run") -> bool:
        """Whether a run is this sweep's.

        Its identity has to be the ledger's. A run of an older version has none and needs the same
        name. The ledger also has to know all of its results: two copies of a folder have one
        identity, and each may have finished other trials since.
        """
        tags = sweep.data.tags
        known_by = TAGS.identity if TAGS.identity in tags else TAGS.sweep
        return (
            sweep.info.experiment_id == self._experiment_id
            and tags[known_by] in (self._identity, self._name)
            and all(map(self._has, self._children(sweep.info.run_id)))
        )

    def _has(self, run: "Run") -> bool:
        """Whether the ledger has the same trial. If it has ended, the last validation has to match.

        Two sweeps with equal settings differ in the times of their validations.
        """
        place, sent = _sent(run)
        entry = self._waiting.get(place)
        if entry is None or entry.key != run.data.tags[TAGS.key]:
            return False
        if sent.status not in FINAL or not sent.reports:
            return True
        reports = entry.result["reports"] if entry.finished and entry.result else []
        validated = {(report["step"], _milliseconds(report)) for report in reports}
        key = entry.run.data.metric.key
        metrics = run.data.to_proto().metrics  # with their times, which `data.metrics` lacks
        return all((m.step, m.timestamp) in validated for m in metrics if m.key == key)

    def _free_title(self, sweeps: "list[Run]") -> str:
        """The sweep's name, with a number if another sweep of the experiment has that name."""
        taken = {
            sweep.data.tags[TAGS.sweep]
            for sweep in sweeps
            if sweep.info.experiment_id == self._experiment_id
            and sweep.info.lifecycle_stage != _DELETED
        }
        numbered = (f"{self._name}#{number}" for number in itertools.count(2))
        titles = itertools.chain([self._name], numbered)
        return next(title for title in titles if title not in taken)

    def _deleted(self, what: str, command: str) -> InputError:
        shown = masked(self._uri)
        return InputError(
            f"{shown}: {what} was deleted in MLflow. Either bring it back: "
            f"MLFLOW_TRACKING_URI={shlex.quote(shown)} mlflow {command}; or name another "
            "--experiment, and the whole sweep is written there"
        )

    def _children(self, parent_id: str) -> "list[Run]":
        return self._search(f"tags.`{_PARENT_TAG}` = '{parent_id}'")

    def _search(self, query: str) -> "list[Run]":
        """The runs of the experiment that match `query`."""
        return all_pages(
            lambda token: self._client.search_runs([self._experiment_id], query, page_token=token)
        )

    def _tags(self, kind: str) -> dict[str, str]:
        return {
            TAGS.kind: kind,
            TAGS.study: self._ledger.study.name,
            TAGS.sweep: self._title,
            TAGS.identity: self._identity,
            _SOURCE_TAG: Path(sys.argv[0]).name,
        }

    def _end_parent(self, finished: bool, summary: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        sequence = _following(find_runs(self._client, f"tags.`{TAGS.kind}` = 'sweep'"))
        now = int(1000 * time.time())
        # The latest value is that of the highest step: clocks of drivers differ.
        metrics = [Metric(name, value, now, sequence) for name, value in summary.items()]
        self._client.log_batch(self._parent_id, metrics=metrics)
        self._client.set_tag(self._parent_id, _NOTE_TAG, self._note())
        self._client.set_tag(self._parent_id, TAGS.sequence, str(sequence))
        self._client.set_terminated(self._parent_id, "FINISHED" if finished else "KILLED")

    def _note(self) -> str:
        """The text of the sweep's page in the UI, with a link that compares its trials."""
        runs = json.dumps([sent.run_id for sent in self._sent.values()][-_COMPARED:])
        experiments = quote(json.dumps([self._experiment_id]))
        address = f"#/compare-runs?runs={quote(runs)}&experiments={experiments}"
        settings = json.dumps(self._settings, indent=1)
        return f"[Compare the trials]({address})\n\n```json\n{settings}\n```"


def _following(sweeps: "Iterable[Run]") -> int:
    """The number after those of all sweeps in a store."""
    return 1 + max((int(run.data.tags.get(TAGS.sequence, 0)) for run in sweeps), default=0)


def _milliseconds(report: Mapping[str, Any]) -> int:
    return int(1000 * report["time"])


def _reports(entry: Entry) -> int:
    return len(entry.result["reports"]) if entry.result else 0


def _batch(entry: Entry, sent: _Sent) -> dict[str, Any]:
    """The part of a trial that MLflow lacks, as the arguments of `log_batch`."""
    from mlflow.entities import Metric, Param, RunTag

    tags = {TAGS.status: entry.status, TAGS.reports: str(_reports(entry))}
    params = {} if sent.reports else entry.run.flat()
    metrics = []
    if entry.result:
        result = entry.result
        # The last report's time and step, so that nothing is there twice when it is sent twice.
        last = result["reports"][-1] if result["reports"] else {"time": 0.0, "step": 0}
        reports = [*result["reports"][sent.reports :], last | {"metrics": _whole(result)}]
        metrics = [
            Metric(name, value, _milliseconds(report), report["step"])
            for report in reports
            for name, value in report["metrics"].items()
        ]
        facts = {name: str(result[name])[-_LONGEST_TAG:] for name in _FACTS if name in result}
        tags |= {getattr(TAGS, name): fact for name, fact in facts.items()}
    return {
        "metrics": metrics,
        "params": [Param(name, str(value)) for name, value in params.items()],
        "tags": [RunTag(name, value) for name, value in tags.items()],
    }


def _whole(result: Mapping[str, Any]) -> dict[str, float]:
    """The values that a trial has once, under the names of MLflow metrics."""
    sizes = {f"{name}_memory_mib": result.get(f"{name}_memory_bytes") for name in _MEMORY}
    values = {name: None if size is None else size / 2**20 for name, size in sizes.items()}
    values |= {name: result.get(name) for name in ("seconds_per_step", "seconds")}
    values |= {k: v for k, v in result["metrics"].items() if k.startswith("test_")}
    return {name: value for name, value in values.items() if value is not None}


def _sent(run: "Run") -> tuple[tuple[Stage, int], _Sent]:
    tags = run.data.tags
    place = tags[TAGS.stage], int(tags[TAGS.index])
    status = tags[TAGS.status]
    if run.info.status == "RUNNING":
        status = "running"  # killed between ending the run and saying so, or the other way round
    return place, _Sent(run.info.run_id, status, int(tags[TAGS.reports]))
