"""MLflow, written by the driver alone: a parent run a sweep, a child run a trial.

The ledger is what has to be written, so nothing is kept here: whatever a server did not take, or a
killed driver did not send, is found by comparing the two, and sent then.
"""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from memmeta import provenance
from memmeta.errors import InputError
from sweeps.engine.ledger import Entry, Ledger
from sweeps.engine.outcome import FINAL, TAGS, Stage
from sweeps.engine.store import (
    all_pages,
    connect,
    database_file,
    explained,
    make_database,
    reason,
)

if TYPE_CHECKING:
    from mlflow.entities import Run

# As MLflow has them, which is slow to import.
_PARENT_TAG, _NOTE_TAG, _SOURCE_TAG = (
    "mlflow.parentRunId",
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

_LONGEST_TAG = 5000
"""Characters that every MLflow store takes."""

_FACTS = ("message", "commit", "hardware", "threads", "gpus", "data_digest")
_MEMORY = ("peak", "predicted", "reserved")


class _Sent(NamedTuple):
    """What MLflow has of a trial."""

    run_id: str
    status: str
    reports: int


class Tracker:
    """Writes what the ledger knows, from a thread: a slow server cannot stall the sweep."""

    def __init__(
        self,
        ledger: Ledger,
        name: str,
        uri: str,
        experiment: str,
        artifacts: Path,
        is_away: Callable[[], bool] = lambda: False,
    ) -> None:
        """Connect soon after there is something to write, in a thread, since that takes seconds.

        Args:
            ledger: the record of the sweep. What of it the store does not have is sent.
            name: of the sweep.
            uri: of the MLflow store.
            experiment: its name there.
            artifacts: folder for files, where the store is a bare database.
            is_away: says that the sweep's storage is, beside which nothing is to be written.
        """
        self._study = ledger.study
        self._name = name
        self._settings = json.dumps(ledger.settings)
        self._place = uri, experiment, artifacts
        self._is_away = is_away
        self._sent: dict[tuple[Stage, int], _Sent] = {}
        self._waiting = {entry.place: entry for entry in ledger.entries()}
        self._changed = threading.Condition()
        self._closing = False
        self._problem: str | None = None
        self._refusal: InputError | None = None
        self._thread = threading.Thread(target=self._run, name="mlflow", daemon=True)

    @property
    def refused(self) -> bool:
        """Whether the store cannot be opened."""
        return self._refusal is not None

    def send(self, entry: Entry) -> None:
        """Have a trial written, in place of what was to be written of it before."""
        with self._changed:
            self._waiting[entry.place] = entry
            self._wake()

    def close(
        self, entries: Iterable[Entry], finished: bool, summary: Mapping[str, float]
    ) -> str | None:
        """Write what is left, and end the sweep's run.

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
        if self._waiting:
            return f"trials not in MLflow yet: {len(self._waiting)} ({self._problem})"
        try:
            self._end_parent(finished, summary)
        except Exception as error:
            return f"the sweep's summary is not in MLflow yet ({reason(error)})"
        return None

    def _wake(self) -> None:
        if self._thread.ident is None:
            self._thread.start()
        self._changed.notify()

    def _run(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closing, timeout=_HEAD_START)
        uri, experiment, artifacts = self._place
        try:
            with explained(uri):
                make_database(uri)
                self._client = connect(uri)
                self._experiment_id = self._experiment(experiment, uri, artifacts)
                self._parent_id = self._parent()
                self._sent = self._find_sent()
        except InputError as error:
            self._refusal = error
        else:
            self._write()

    def _write(self) -> None:
        """Write what is waiting, the oldest first; after a failure try again, ever more rarely."""
        pause, begun_closing = 0.0, None
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if pause and not self._closing:
                    self._changed.wait_for(lambda: self._closing, timeout=pause)
                if self._closing:
                    begun_closing = begun_closing or time.monotonic()
                    patience = begun_closing + _PATIENCE - time.monotonic()
                    if not self._waiting or (pause and patience < 0):
                        return
                place = next(iter(self._waiting))
                entry = self._waiting.pop(place)
            try:
                self._sync(entry, anew=pause > 0)
                pause = 0.0
            except Exception as error:
                # MLflow, SQLAlchemy and HTTP clients share no narrower base.
                self._problem = reason(error)
                pause = min(_LONGEST_PAUSE, 2 * pause or 1.0)
                with self._changed:
                    self._waiting.setdefault(place, entry)
                if self._closing:
                    time.sleep(1.0)

    def _sync(self, entry: Entry, anew: bool) -> None:
        """Make MLflow have a trial as it is. Done twice, it leaves what it leaves done once."""
        if self._is_away():
            raise OSError("the storage is away")
        if anew:
            # A run may have been begun although the answer did not come.
            self._sent = self._find_sent()
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
            TAGS.key: entry.run.key,
            TAGS.config: entry.run.model_dump_json(),
            TAGS.status: "running",
            TAGS.reports: "0",
        }
        run = self._client.create_run(self._experiment_id, tags=tags, run_name=entry.name)
        return _Sent(run.info.run_id, "running", 0)

    def _experiment(self, name: str, uri: str, artifacts: Path) -> str:
        found = self._client.get_experiment_by_name(name)
        if found:
            return str(found.experiment_id)
        # A server keeps artifacts where it was told to; a bare database would put them into
        # whatever folder the driver was started in.
        location = artifacts.as_uri() if database_file(uri) else None
        return str(self._client.create_experiment(name, location, _EXPERIMENT_TAGS))

    def _parent(self) -> str:
        query = f"tags.`{TAGS.sweep}` = '{self._name}' and tags.`{TAGS.kind}` = 'sweep'"
        runs = self._client.search_runs([self._experiment_id], query, max_results=1)
        if runs:
            run_id = str(runs[0].info.run_id)
            self._client.update_run(run_id, status="RUNNING")
        else:
            tags = self._tags("sweep") | {TAGS.commit: provenance.commit()}
            run = self._client.create_run(self._experiment_id, tags=tags, run_name=self._name)
            run_id = str(run.info.run_id)
        self._client.set_tag(run_id, TAGS.settings, self._settings)
        return run_id

    def _find_sent(self) -> dict[tuple[Stage, int], _Sent]:
        query = f"tags.`{_PARENT_TAG}` = '{self._parent_id}'"
        runs: list[Run] = all_pages(
            lambda token: self._client.search_runs([self._experiment_id], query, page_token=token)
        )
        return dict(map(_sent, runs))

    def _tags(self, kind: str) -> dict[str, str]:
        return {
            TAGS.kind: kind,
            TAGS.study: self._study.name,
            TAGS.sweep: self._name,
            _SOURCE_TAG: Path(sys.argv[0]).name,
        }

    def _end_parent(self, finished: bool, summary: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [Metric(name, value, now, 0) for name, value in summary.items()]
        self._client.log_batch(self._parent_id, metrics=metrics)
        self._client.set_tag(self._parent_id, _NOTE_TAG, self._note())
        self._client.set_terminated(self._parent_id, "FINISHED" if finished else "KILLED")

    def _note(self) -> str:
        """What the UI shows on the sweep's page: a way to the comparison of its trials."""
        runs = json.dumps([sent.run_id for sent in self._sent.values()][-_COMPARED:])
        experiments = quote(json.dumps([self._experiment_id]))
        address = f"#/compare-runs?runs={quote(runs)}&experiments={experiments}"
        settings = json.dumps(json.loads(self._settings), indent=1)
        return f"[Compare the trials]({address})\n\n```json\n{settings}\n```"


def _reports(entry: Entry) -> int:
    return len(entry.result["reports"]) if entry.result else 0


def _batch(entry: Entry, sent: _Sent) -> dict[str, Any]:
    """What MLflow does not have of a trial, as the arguments of `log_batch`."""
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
            Metric(name, value, int(1000 * report["time"]), report["step"])
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
    """What is known of a trial as a whole, under the names of MLflow metrics."""
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
