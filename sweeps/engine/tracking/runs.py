"""The MLflow runs of a sweep: a parent run for the sweep and a child run for each trial."""

import itertools
import json
import shlex
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from memmeta.checkpoint import Saved
from memmeta.errors import InputError
from memmeta.system import provenance
from sweeps.engine.ledger.entry import Entry, Slot
from sweeps.engine.ledger.settings import Settings
from sweeps.engine.stores import artifacts
from sweeps.engine.stores.masking import masked
from sweeps.engine.stores.models import MODEL
from sweeps.engine.stores.store import all_pages, connect, find_runs
from sweeps.engine.study.outcome import FINAL, TAGS, Stage, sequence
from sweeps.engine.tracking.conversion import (
    SentTrial,
    milliseconds,
    report_count,
    score_names,
    sent_trial,
    unsent_batch,
)
from sweeps.engine.tracking.model import log_model
from sweeps.engine.tracking.notes import (
    NOTE_TAG,
    experiment_note,
    is_ours,
    sweep_note,
    trial_note,
)
from sweeps.engine.tracking.views import comparison_address, save_view, trials_address

if TYPE_CHECKING:
    from mlflow.entities import Experiment, Run

# Copies of MLflow's constants, because importing them takes seconds.
_SOURCE_TAG = "mlflow.source.name"
_DELETED = "deleted"
_EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}

_RUN_STATUS = {**dict.fromkeys(FINAL, "FINISHED"), "interrupted": "KILLED", "failed": "FAILED"}
"""MLflow's run status for the status of a trial that does not run."""


class SweepNames(NamedTuple):
    """The names of a sweep in MLflow."""

    study: str
    """Name of the study."""
    sweep: str
    """Name of the sweep's folder."""
    identity: str
    """Unique id of the sweep's folder."""
    experiment: str
    """Name of the experiment."""


class SweepRuns:
    """Finds or creates the runs of a sweep, and brings them up to date.

    Attributes:
        run_id: the sweep's run.
        sent: the state of each trial in MLflow.
    """

    def __init__(
        self,
        uri: str,
        names: SweepNames,
        files: Path,
        entries: Mapping[Slot, Entry],
        settings: Mapping[Stage, Settings],
        planned: int | None = None,
    ) -> None:
        """Find or create the experiment and the sweep's run.

        Args:
            uri: the MLflow store.
            names: names of the sweep.
            files: folder for artifacts if the store is a database without a server.
            entries: all trials in the ledger.
            settings: the settings of each stage.
            planned: number of trials that the sweep has when it is finished; None if unknown.

        Raises:
            InputError: the experiment or the sweep's run was deleted.
        """
        self._uri = uri
        self._names = names
        self._title = names.sweep
        self._sent_settings = ""
        self._client = connect(uri)
        self._experiment = self._find_experiment(files)
        self._experiment_id = str(self._experiment.experiment_id)
        artifacts.follow(uri)
        self._parent = self._find_parent(entries, settings)
        self.run_id = str(self._parent.info.run_id)
        self._describe_experiment()
        self._params: dict[str, None] | None = None  # a set that keeps the order
        self._update_view(entries.values())
        self.sent: dict[Slot, SentTrial] = {}
        self.refresh()
        if planned is not None:
            self._client.set_tag(self.run_id, TAGS.planned, str(planned))

    def refresh(self) -> None:
        """Read the state of all trials from MLflow again.

        Needed after an error: a run may have been created although the answer was lost.
        """
        self.sent = dict(map(sent_trial, self._children(self.run_id)))

    def sync(self, entry: Entry) -> None:
        """Bring a trial's run up to date. Repeating the call changes nothing."""
        self._update_view([entry])
        sent = self.sent.get(entry.slot)
        if sent and not sent.has_note:
            self._client.set_tag(sent.run_id, NOTE_TAG, self._trial_note(entry))
            sent = self.sent[entry.slot] = sent._replace(has_note=True)
        state = entry.status, report_count(entry)
        # A trial that ran again to be scored on further data sets has the same state as before.
        if sent and (sent.status, sent.reports) == state and score_names(entry) <= sent.score_names:
            return
        sent = sent or self._create_run(entry)
        if sent.status not in ("running", entry.status):
            # Remove the message of an earlier end.
            self._client.set_tag(sent.run_id, TAGS.message, "")
        if entry.status == "running" and sent.status != "running":
            self._client.update_run(sent.run_id, status="RUNNING")
        self._client.log_batch(sent.run_id, **unsent_batch(entry, sent))
        if entry.status != "running":
            self._client.set_terminated(sent.run_id, _RUN_STATUS[entry.status])
        self.sent[entry.slot] = sent._replace(
            status=entry.status, reports=report_count(entry), score_names=score_names(entry)
        )

    @property
    def addresses(self) -> tuple[str, str]:
        """The UI's pages with the trials and their comparison, relative to the UI's address."""
        return trials_address(self._parent), comparison_address(self._parent)

    def write_settings(self, settings: Mapping[Stage, Settings]) -> None:
        """Write the settings of all stages, unless they are in MLflow already."""
        self._write_settings(self.run_id, settings)

    def finish(
        self,
        finished: bool,
        summary: Mapping[str, float],
        best: Entry | None = None,
    ) -> None:
        """End the sweep's run.

        Args:
            finished: whether all trials are done.
            summary: metrics of the sweep.
            best: the best trial of explore and search, if there is one.
        """
        from mlflow.entities import Metric, RunTag

        number = _next_sequence(find_runs(self._client, f"tags.`{TAGS.kind}` = 'sweep'"))
        now = int(1000 * time.time())
        # MLflow shows the value of the highest step. Times are unreliable, since clocks differ.
        metrics = [Metric(name, value, now, number) for name, value in summary.items()]
        tags = {TAGS.sequence: str(number)}
        if best:
            tags[TAGS.best] = json.dumps({"trial": best.name, **best.params})
        note = self._client.get_run(self.run_id).data.tags.get(NOTE_TAG)
        if is_ours(note):
            tags[NOTE_TAG] = sweep_note(self._parent, self._names.study, best)
        self._client.log_batch(
            self.run_id, metrics, tags=[RunTag(name, value) for name, value in tags.items()]
        )
        self._client.set_terminated(self.run_id, "FINISHED" if finished else "KILLED")

    def log_model(self, trial: Entry, read: Callable[[], Saved]) -> str:
        """Log a trial's model to the sweep's run. Returns the model's address. See `log_model`."""
        log_model(self._client, self._parent, trial, self.sent[trial.slot].run_id, read)
        return f"runs:/{self.run_id}/{MODEL}"

    def _create_run(self, entry: Entry) -> SentTrial:
        tags = self._tags("trial") | {
            TAGS.parent: self.run_id,
            TAGS.stage: entry.stage,
            TAGS.index: str(entry.index),
            TAGS.key: entry.key,
            TAGS.config: entry.run.model_dump_json(),
            TAGS.status: "running",
            TAGS.reports: "0",
            NOTE_TAG: self._trial_note(entry),
        }
        run = self._client.create_run(self._experiment_id, tags=tags, run_name=entry.name)
        return SentTrial(run.info.run_id, "running", 0, has_note=True)

    def _find_experiment(self, files: Path) -> "Experiment":
        """Find or create the experiment."""
        name = self._names.experiment
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            location, tags = artifacts.location(self._uri, files)
            try:
                number = self._client.create_experiment(name, location, _EXPERIMENT_TAGS | tags)
                experiment = self._client.get_experiment(number)
            except Exception:
                # Another sweep may have created it at the same time.
                experiment = self._client.get_experiment_by_name(name)
                if experiment is None:
                    raise
        if experiment.lifecycle_stage == _DELETED:
            raise self._deleted_error(
                f"experiment {name}", f"experiments restore -x {experiment.experiment_id}"
            )
        return experiment

    def _find_parent(
        self, entries: Mapping[Slot, Entry], settings: Mapping[Stage, Settings]
    ) -> "Run":
        """Find or create the sweep's run."""
        sweeps = find_runs(self._client, f"tags.`{TAGS.kind}` = 'sweep'", deleted=True)
        own = [sweep for sweep in sweeps if self._is_own(sweep, entries)]
        active = [sweep for sweep in own if sweep.info.lifecycle_stage != _DELETED]
        for sweep in own:
            if not active and self._children(sweep.info.run_id):
                restore = f"runs restore --run-id {sweep.info.run_id}"
                raise self._deleted_error(f"the run of sweep {self._names.sweep}", restore)
        if active:
            run = active[0]
            run_id = str(run.info.run_id)
            self._title = str(run.data.tags[TAGS.sweep])
            self._client.update_run(run_id, status="RUNNING")
            self._client.set_tag(run_id, TAGS.identity, self._names.identity)
        else:
            self._title = self._free_title(sweeps)
            tags = self._tags("sweep") | {TAGS.commit: provenance.commit()}
            run = self._client.create_run(self._experiment_id, tags=tags, run_name=self._title)
            run_id = str(run.info.run_id)
            self._client.set_tag(run_id, NOTE_TAG, sweep_note(run, self._names.study, None))
            self._adopt_orphans(run_id, {str(sweep.info.run_id) for sweep in sweeps}, entries)
        self._write_settings(run_id, settings)
        self._client.set_tag(run_id, TAGS.sequence, str(_next_sequence(sweeps)))
        return run

    def _adopt_orphans(
        self, parent_id: str, sweep_ids: Collection[str], entries: Mapping[Slot, Entry]
    ) -> None:
        """Take over trials of this sweep whose parent run was deleted permanently."""
        identity = self._names.identity
        query = f"tags.`{TAGS.identity}` = '{identity}' and tags.`{TAGS.kind}` = 'trial'"
        for run in self._search(query):
            if run.data.tags[TAGS.parent] not in sweep_ids and _matches_ledger(run, entries):
                self._client.set_tag(run.info.run_id, TAGS.parent, parent_id)

    def _write_settings(self, run_id: str, settings: Mapping[Stage, Settings]) -> None:
        text = json.dumps(settings)
        if text != self._sent_settings:
            self._client.set_tag(run_id, TAGS.settings, text)
            self._sent_settings = text

    def _is_own(self, sweep: "Run", entries: Mapping[Slot, Entry]) -> bool:
        """Whether a run belongs to this sweep.

        Its identity must be that of the folder; runs of older versions have none and must have the
        same name. In addition, all of its results must be in the ledger: copies of a folder have
        the same identity, and each copy may have finished other trials since.
        """
        tags = sweep.data.tags
        known_by = TAGS.identity if TAGS.identity in tags else TAGS.sweep
        return (
            sweep.info.experiment_id == self._experiment_id
            and tags[known_by] in (self._names.identity, self._names.sweep)
            and all(_matches_ledger(run, entries) for run in self._children(sweep.info.run_id))
        )

    def _free_title(self, sweeps: "list[Run]") -> str:
        """The sweep's name, with a number if another sweep in the experiment has the same name."""
        taken = {
            sweep.data.tags[TAGS.sweep]
            for sweep in sweeps
            if sweep.info.experiment_id == self._experiment_id
            and sweep.info.lifecycle_stage != _DELETED
        }
        name = self._names.sweep
        titles = itertools.chain([name], (f"{name}#{number}" for number in itertools.count(2)))
        return next(title for title in titles if title not in taken)

    def _deleted_error(self, what: str, command: str) -> InputError:
        shown = masked(self._uri)
        return InputError(
            f"{shown}: {what} was deleted in MLflow. Either bring it back: "
            f"MLFLOW_TRACKING_URI={shlex.quote(shown)} mlflow {command}; or name another "
            "experiment, and the whole sweep is written there"
        )

    def _children(self, parent_id: str) -> "list[Run]":
        return self._search(f"tags.`{TAGS.parent}` = '{parent_id}'")

    def _search(self, query: str) -> "list[Run]":
        """The runs of the experiment that match `query`."""
        return all_pages(
            lambda token: self._client.search_runs([self._experiment_id], query, page_token=token)
        )

    def _tags(self, kind: str) -> dict[str, str]:
        return {
            TAGS.kind: kind,
            TAGS.study: self._names.study,
            TAGS.sweep: self._title,
            TAGS.identity: self._names.identity,
            _SOURCE_TAG: Path(sys.argv[0]).name,
        }

    def _describe_experiment(self) -> None:
        """Write the experiment's note, unless a user has written one."""
        old = self._experiment.tags.get(NOTE_TAG)
        note = experiment_note(self._parent, self._title)
        if is_ours(old) and note != old:
            self._client.set_experiment_tag(self._experiment_id, NOTE_TAG, note)

    def _trial_note(self, entry: Entry) -> str:
        return trial_note(entry.stage, self._parent, self._title)

    def _update_view(self, entries: Collection[Entry]) -> None:
        """Add the params of trials to the columns of the sweep's saved view."""
        params = self._params or {}
        params = params | dict.fromkeys(name for entry in entries for name in entry.params)
        if entries and params != self._params:
            metric = next(iter(entries)).run.data.metric
            save_view(self._client, self._experiment, self._parent, metric, params)
            self._params = params


def _matches_ledger(run: "Run", entries: Mapping[Slot, Entry]) -> bool:
    """Whether a trial's run matches the ledger. If it has ended, the last validation must match.

    Trials of two sweeps with equal settings differ in the times of their validations.
    """
    slot, sent = sent_trial(run)
    entry = entries.get(slot)
    if entry is None or entry.key != run.data.tags[TAGS.key]:
        return False
    if sent.status not in FINAL or not sent.reports:
        return True
    reports = entry.result["reports"] if entry.result else []
    validated = {(report["step"], milliseconds(report)) for report in reports}
    key = entry.run.data.metric.key
    metrics = run.data.to_proto().metrics  # unlike `data.metrics`, these have times
    return all((m.step, m.timestamp) in validated for m in metrics if m.key == key)


def _next_sequence(sweeps: "Iterable[Run]") -> int:
    """One more than the largest sequence number of all sweeps in a store."""
    return 1 + max((sequence(run.data.tags) for run in sweeps), default=0)
