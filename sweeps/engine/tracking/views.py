"""The saved view of a sweep in the MLflow UI, and links to it.

By default the UI opens its pages for language models, and its table of runs has no columns for
metrics and params. A saved view selects both the columns and a chart. It is a tag of the experiment
in the format of the UI of MLflow 3.17. The UI lists saved views in the menu "Views".
"""

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from memmeta.metric import Metric

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run

_TAG = "mlflow.sharedViewState."
"""Prefix of the tags of saved views. A constant of the UI."""

_OURS = f"{_TAG}memmeta-"

_MOST_VIEWS = 20
"""Maximum number of our views in an experiment. The UI lets users save theirs up to 40 views."""

_MODEL_TRAINING = "workflowType=machine_learning"
"""Selects the UI's pages for model training."""

_MEMORY = "peak_memory_mib"


def runs_address(experiment_id: str) -> str:
    """The page with all runs of an experiment, relative to the UI's address."""
    return f"#/experiments/{experiment_id}/runs?{_MODEL_TRAINING}"


def trials_address(sweep: "Run") -> str:
    """The table of a sweep's trials, best first, relative to the UI's address."""
    return f"{runs_address(sweep.info.experiment_id)}&viewStateShareKey={_key(sweep)}"


def comparison_address(sweep: "Run") -> str:
    """The parallel coordinates of a sweep's trials, relative to the UI's address."""
    return f"{trials_address(sweep)}&compareRunsMode=CHART"


def save_view(
    client: "MlflowClient",
    experiment: "Experiment",
    sweep: "Run",
    metric: Metric,
    params: Iterable[str],
) -> None:
    """Write the view of a sweep, unless the experiment has it already.

    The oldest views are deleted if there are more than `_MOST_VIEWS`.

    Args:
        client: the client of the store.
        experiment: the sweep's experiment.
        sweep: the sweep's run.
        metric: the metric that ranks the trials.
        params: names of the params that differ between trials.
    """
    name = _TAG + _key(sweep)
    value = _as_tag(sweep, metric, list(params))
    if experiment.tags.get(name) == value:
        return
    views = {tag for tag in experiment.tags if tag.startswith(_OURS)} | {name}
    for tag in sorted(views - {name})[: max(0, len(views) - _MOST_VIEWS)]:
        client.delete_experiment_tag(experiment.experiment_id, tag)
    client.set_experiment_tag(experiment.experiment_id, name, value)


def _key(sweep: "Run") -> str:
    """The view's id. Ids sort by the start of their sweeps."""
    return f"memmeta-{sweep.info.start_time:x}-{sweep.info.run_id[:4]}"


def _as_tag(sweep: "Run", metric: Metric, params: list[str]) -> str:
    view: Mapping[str, Any] = {
        "name": sweep.info.run_name,
        "createdAt": sweep.info.start_time,
        "updatedAt": sweep.info.start_time,
        "state": json.dumps(_state(sweep.info.run_id, metric, params)),
    }
    return json.dumps(view)


def _state(sweep_id: str, metric: Metric, params: list[str]) -> dict[str, Any]:
    """The columns, the filter, the order and the chart, as the UI stores them."""
    metrics = [metric.key, f"test_{metric.name}", _MEMORY]
    columns = [f"metrics.`{name}`" for name in metrics] + [f"params.`{name}`" for name in params]
    section = {"uuid": "memmeta", "name": "Trials", "display": True, "isReordered": False}
    chart = {
        "uuid": "memmeta-parallel",
        "metricSectionId": section["uuid"],
        "type": "PARALLEL",
        "selectedParams": params,
        "selectedMetrics": [_MEMORY, metric.key],
        "showAllRuns": True,
        "deleted": False,
        "isGenerated": False,
    }
    return {
        "searchFilter": f"tags.`mlflow.parentRunId` = '{sweep_id}'",
        "orderByKey": columns[0],
        "orderByAsc": metric.direction == "minimize",
        "selectedColumns": columns,
        "columnOrder": columns,
        # In the charts, the list of runs takes half of the page.
        "runListHidden": True,
        "compareRunSections": [section | {"columns": 1, "cardHeight": 400}],
        "compareRunCharts": [chart],
    }
