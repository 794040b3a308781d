"""MLflow, written by the driver alone: a parent run a sweep, a child run a trial."""

import json
import logging
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mlflow.entities import Metric, Param, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NOTE, MLFLOW_SOURCE_NAME
from ray.tune import Callback
from ray.tune.experiment import Trial

from memmeta import provenance
from memmeta.config import RunConfig
from sweeps.engine.outcome import INFEASIBLE, TAGS
from sweeps.engine.search import run_of
from sweeps.engine.store import all_pages, connect, explained, reason
from sweeps.engine.study import Study
from sweeps.engine.unsaved import Unsaved

logger = logging.getLogger(__name__)

# Has the UI open on the table of runs rather than on its pages for language models.
_EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}

_ENDS = {
    "complete": "FINISHED",
    **dict.fromkeys(INFEASIBLE, "FINISHED"),
    "interrupted": "KILLED",
    "failed": "FAILED",
}
"""MLflow's word for how a trial ended."""


_COMPARED = 100
"""Trials in the link that compares them: an address has to stay within what browsers take."""


class Tracker(Unsaved, Callback):
    """Writes what Tune reports, through a queue, so that a slow server cannot stall the sweep."""

    def __init__(self, study: Study, seed: int, uri: str, experiment: str, storage: Path) -> None:
        """Connect, and find the sweep's runs or begin them.

        Raises:
            InputError: the store cannot be opened.
        """
        self._study = study
        self._seed = seed
        with explained(uri):
            self._client = connect(uri)
            self._experiment_id = self._experiment(experiment, uri, storage)
            self._parent_id = self._parent()
            self._children = self._find_children()
        self._running: set[str] = set()
        self._queue = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mlflow")

    def on_trial_start(self, *, trial: Trial, **_: Any) -> None:
        """Begin the trial's run, or open the one that an earlier start began."""
        self._later(self._begin, trial.config["number"], run_of(trial))

    def on_trial_result(self, *, trial: Trial, result: dict[str, Any], **_: Any) -> None:
        """Log the metrics of a validation point; at the last one, end the run."""
        self._later(self._log, run_of(trial).key, dict(result))

    def on_trial_error(self, *, trial: Trial, **_: Any) -> None:
        """End the run of a trial whose machine was lost once too often."""
        self._later(self._end, run_of(trial).key, "failed")

    def close(self, finished: bool, summary: Mapping[str, float]) -> None:
        """Write what is queued, and end the sweep's run and those of interrupted trials."""
        self._later(self._end_parent, finished, dict(summary))
        self._queue.shutdown(wait=True)

    def _later(self, write: Callable[..., None], *args: Any) -> None:
        def attempt() -> None:
            try:
                write(*args)
            except Exception as error:
                logger.warning("MLflow: not written (%s)", reason(error))

        self._queue.submit(attempt)

    def _experiment(self, name: str, uri: str, storage: Path) -> str:
        found = self._client.get_experiment_by_name(name)
        if found:
            return str(found.experiment_id)
        # A server keeps artifacts where it was told to; a bare database would put them into
        # whatever folder the driver was started in.
        location = (storage / "artifacts").as_uri() if uri.startswith("sqlite") else None
        return str(self._client.create_experiment(name, location, _EXPERIMENT_TAGS))

    def _parent(self) -> str:
        name = self._study.sweep_name(self._seed)
        query = f"tags.`{TAGS.sweep}` = '{name}' and tags.`{TAGS.kind}` = 'sweep'"
        runs = self._client.search_runs([self._experiment_id], query, max_results=1)
        if runs:
            self._client.update_run(runs[0].info.run_id, status="RUNNING")
            return str(runs[0].info.run_id)
        settings = self._study.settings(self._seed)
        tags = self._tags("sweep") | {
            TAGS.commit: provenance.commit(),
            TAGS.settings: json.dumps(settings),
        }
        run = self._client.create_run(self._experiment_id, tags=tags, run_name=name)
        return str(run.info.run_id)

    def _find_children(self) -> dict[str, str]:
        query = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{self._parent_id}'"
        runs = all_pages(
            lambda token: self._client.search_runs([self._experiment_id], query, page_token=token)
        )
        return {run.data.tags[TAGS.key]: run.info.run_id for run in runs}

    def _tags(self, kind: str) -> dict[str, str]:
        return {
            TAGS.kind: kind,
            TAGS.study: self._study.name,
            TAGS.sweep: self._study.sweep_name(self._seed),
            MLFLOW_SOURCE_NAME: Path(sys.argv[0]).name,
        }

    def _begin(self, number: int, config: RunConfig) -> None:
        self._running.add(config.key)
        if config.key in self._children:
            run_id = self._children[config.key]
            self._client.set_tag(run_id, TAGS.status, "running")
            self._client.update_run(run_id, status="RUNNING")
            return
        tags = self._tags("trial") | {
            MLFLOW_PARENT_RUN_ID: self._parent_id,
            TAGS.number: str(number),
            TAGS.key: config.key,
            TAGS.config: config.model_dump_json(),
            TAGS.status: "running",
        }
        name = f"trial {number:03d}"
        run = self._client.create_run(self._experiment_id, tags=tags, run_name=name)
        self._children[config.key] = run.info.run_id
        params = [Param(name, str(value)) for name, value in config.flat().items()]
        self._client.log_batch(run.info.run_id, params=params)

    def _log(self, key: str, result: dict[str, Any]) -> None:
        now = int(1000 * time.time())
        values = dict(result["metrics"])
        if result["peak_memory_bytes"] is not None:
            values["peak_memory_mib"] = result["peak_memory_bytes"] / 2**20
        if result["seconds_per_step"] is not None:
            values["seconds_per_step"] = result["seconds_per_step"]
        metrics = [Metric(name, value, now, result["step"]) for name, value in values.items()]
        facts = ("commit", "hardware", "threads", "data_digest")
        tags = [RunTag(getattr(TAGS, name), str(result[name])) for name in facts]
        self._client.log_batch(self._children[key], metrics=metrics, tags=tags)
        if result["status"] != "running":
            self._end(key, result["status"])

    def _end(self, key: str, status: str) -> None:
        run_id = self._children[key]
        self._client.set_tag(run_id, TAGS.status, status)
        self._client.set_terminated(run_id, _ENDS[status])
        self._running.discard(key)

    def _end_parent(self, finished: bool, summary: dict[str, float]) -> None:
        for key in list(self._running):
            self._end(key, "interrupted")
        now = int(1000 * time.time())
        metrics = [Metric(name, value, now, 0) for name, value in summary.items()]
        self._client.log_batch(self._parent_id, metrics=metrics)
        self._client.set_tag(self._parent_id, MLFLOW_RUN_NOTE, self._note())
        self._client.set_terminated(self._parent_id, "FINISHED" if finished else "KILLED")

    def _note(self) -> str:
        """What the UI shows on the sweep's page: a way to the comparison of its trials."""
        runs = json.dumps(list(self._children.values())[-_COMPARED:])
        experiments = quote(json.dumps([self._experiment_id]))
        address = f"#/compare-runs?runs={quote(runs)}&experiments={experiments}"
        settings = json.dumps(self._study.settings(self._seed), indent=1)
        return f"[Compare the trials]({address})\n\n```json\n{settings}\n```"
