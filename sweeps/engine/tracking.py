"""MLflow, written by the driver alone: a parent run a sweep, a child run a trial."""

import json
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NOTE
from ray.tune import Callback
from ray.tune.experiment import Trial

from memmeta import provenance
from memmeta.config import RunConfig
from memmeta.errors import InputError
from sweeps.engine.outcome import INFEASIBLE, TAGS
from sweeps.engine.study import Study
from sweeps.engine.unsaved import Unsaved

logger = logging.getLogger(__name__)


class Tracker(Unsaved, Callback):
    """Writes what Tune reports, through a queue, so that a slow server cannot stall the sweep."""

    def __init__(self, study: Study, seed: int, uri: str, experiment: str, storage: Path) -> None:
        """Connect, and find the sweep's runs or begin them.

        Raises:
            InputError: the store cannot be opened.
        """
        self._study = study
        self._sweep = study.sweep_name(seed)
        try:
            self._client = MlflowClient(uri)
            self.experiment_id = self._experiment(experiment, uri, storage)
            self.parent_id = self._parent(seed)
            self._children = self._find_children()
        except (MlflowException, OSError) as error:
            raise InputError(
                f"{uri}: MLflow store cannot be opened ({_first_line(error)})"
            ) from None
        self._queue = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mlflow")

    def on_trial_start(self, *, trial: Trial, **_: Any) -> None:
        """Begin the trial's run, or open the one that an earlier start began."""
        self._later(self._begin, trial.config["number"], RunConfig(**trial.config["run"]))

    def on_trial_result(self, *, trial: Trial, result: dict[str, Any], **_: Any) -> None:
        """Log the metrics of a validation point; at the last one, end the run."""
        self._later(self._log, RunConfig(**trial.config["run"]).key, dict(result))

    def on_trial_error(self, *, trial: Trial, **_: Any) -> None:
        """End the run of a trial whose machine was lost once too often."""
        key = RunConfig(**trial.config["run"]).key
        self._later(self._end, key, "failed")

    def close(self, finished: bool, best: Mapping[str, float]) -> None:
        """Write what is queued and end the sweep's run."""
        self._later(self._end_parent, finished, dict(best))
        self._queue.shutdown(wait=True)

    def _later(self, write: Callable[..., None], *args: Any) -> None:
        def attempt() -> None:
            try:
                write(*args)
            except Exception as error:
                logger.warning("MLflow: not written (%s)", _first_line(error))

        self._queue.submit(attempt)

    def _experiment(self, name: str, uri: str, storage: Path) -> str:
        found = self._client.get_experiment_by_name(name)
        if found:
            return str(found.experiment_id)
        # A server keeps artifacts where it was told to; a bare database would put them into
        # whatever folder the driver was started in.
        local = "://" in uri and uri.startswith("sqlite")
        location = (storage.resolve() / "artifacts").as_uri() if local else None
        return str(self._client.create_experiment(name, artifact_location=location))

    def _parent(self, seed: int) -> str:
        query = f"tags.`{TAGS.sweep}` = '{self._sweep}' and tags.`{TAGS.kind}` = 'sweep'"
        runs = self._client.search_runs([self.experiment_id], query, max_results=1)
        if runs:
            self._client.update_run(runs[0].info.run_id, status="RUNNING")
            return str(runs[0].info.run_id)
        settings = self._study.settings(seed)
        run = self._client.create_run(
            self.experiment_id,
            run_name=self._sweep,
            tags=self._tags("sweep")
            | {
                TAGS.commit: provenance.commit(),
                MLFLOW_RUN_NOTE: f"```json\n{json.dumps(settings, indent=1)}\n```",
            },
        )
        return str(run.info.run_id)

    def _find_children(self) -> dict[str, str]:
        query = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{self.parent_id}'"
        children: dict[str, str] = {}
        token = None
        while True:
            page = self._client.search_runs([self.experiment_id], query, page_token=token)
            children |= {run.data.tags[TAGS.key]: run.info.run_id for run in page}
            token = page.token
            if not token:
                return children

    def _tags(self, kind: str) -> dict[str, str]:
        return {TAGS.kind: kind, TAGS.study: self._study.name, TAGS.sweep: self._sweep}

    def _begin(self, number: int, config: RunConfig) -> None:
        if config.key in self._children:
            self._client.update_run(self._children[config.key], status="RUNNING")
            return
        run = self._client.create_run(
            self.experiment_id,
            run_name=f"trial {number:03d}",
            tags=self._tags("trial")
            | {
                MLFLOW_PARENT_RUN_ID: self.parent_id,
                TAGS.key: config.key,
                TAGS.config: config.model_dump_json(),
                TAGS.status: "running",
            },
        )
        self._children[config.key] = run.info.run_id
        params = [Param(name, str(value)) for name, value in _params(config).items()]
        self._client.log_batch(run.info.run_id, params=params)

    def _log(self, key: str, result: dict[str, Any]) -> None:
        now = int(1000 * time.time())
        values = dict(result["metrics"])
        if result["peak_memory_bytes"] is not None:
            values["peak_memory_mib"] = result["peak_memory_bytes"] / 2**20
        if result["seconds_per_step"] is not None:
            values["seconds_per_step"] = result["seconds_per_step"]
        metrics = [Metric(name, value, now, result["step"]) for name, value in values.items()]
        tags = [
            RunTag(getattr(TAGS, name), str(result[name]))
            for name in ("commit", "hardware", "threads", "data_digest")
        ]
        self._client.log_batch(self._children[key], metrics=metrics, tags=tags)
        if result["status"] != "running":
            self._end(key, result["status"])

    def _end(self, key: str, status: str) -> None:
        run_id = self._children[key]
        self._client.set_tag(run_id, TAGS.status, status)
        ended_well = status == "complete" or status in INFEASIBLE
        self._client.set_terminated(run_id, "FINISHED" if ended_well else "FAILED")

    def _end_parent(self, finished: bool, best: dict[str, float]) -> None:
        now = int(1000 * time.time())
        metrics = [Metric(name, value, now, 0) for name, value in best.items()]
        self._client.log_batch(self.parent_id, metrics=metrics)
        self._client.set_terminated(self.parent_id, "FINISHED" if finished else "KILLED")


def _params(config: RunConfig) -> dict[str, Any]:
    """The run's settings under the short names of their fields."""
    data = config.data.model_dump()
    dataset = {"dataset": data.pop("name")}
    budget = {"iterations": config.iterations}
    return dataset | data | config.learner.model_dump() | budget | {"seed": config.seed}


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
