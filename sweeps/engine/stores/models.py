"""The model of a sweep in MLflow: its name and files."""

from typing import TYPE_CHECKING

from sweeps.engine.stores.store import all_pages

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run

MODEL = "model"
"""Name of the model: `runs:/<id of the sweep's run>/model` is its address."""

CHECKPOINT = "artifacts/model.pt"
"""The checkpoint among the files of the model."""


def find_models(client: "MlflowClient", sweep: "Run") -> "list[LoggedModel]":
    """All models of a sweep, newest first. There are several if a driver was killed."""
    query = f"name = '{MODEL}' AND source_run_id = '{sweep.info.run_id}'"
    experiment = [sweep.info.experiment_id]
    return all_pages(lambda token: client.search_logged_models(experiment, query, page_token=token))


def is_complete(model: "LoggedModel") -> bool:
    """Whether all files of a model were uploaded."""
    return bool(model.status == "READY")
