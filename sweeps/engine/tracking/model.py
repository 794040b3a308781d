"""Logs the best confirmed model of a sweep to the sweep's run, as an MLflow model."""

from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from memmeta import checkpoint
from memmeta.checkpoint import Saved
from sweeps.engine.ledger.entry import Entry
from sweeps.engine.stores.models import CHECKPOINT, MODEL, find_models, is_complete
from sweeps.engine.study.outcome import TAGS
from sweeps.engine.tracking.conversion import milliseconds
from sweeps.engine.tracking.notes import NOTE_TAG, model_note

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run

_CODE = Path(__file__).with_name("few_shot_model.py")


def log_model(
    client: "MlflowClient", sweep: "Run", trial: Entry, trial_run: str, read: Callable[[], Saved]
) -> None:
    """Log the model of a trial, unless it is logged already, and delete those of other trials.

    Args:
        client: the client of the store.
        sweep: the sweep's run, to which the model belongs.
        trial: the trial that trained the model.
        trial_run: id of the trial's run, whose metrics the model shows.
        read: reads the trial's checkpoint.

    Raises:
        Exception: the store does not accept files, or the checkpoint cannot be read.
    """
    models = find_models(client, sweep)
    current = [m for m in models if is_complete(m) and m.tags.get(TAGS.key) == trial.key][:1]
    if not current:
        saved = read()
        with TemporaryDirectory(prefix="memmeta-model-") as folder:
            _upload(client, sweep, trial, trial_run, saved, Path(folder))
    for model in models:
        if model not in current:
            client.delete_logged_model(model.model_id)


def _upload(
    client: "MlflowClient", sweep: "Run", trial: Entry, trial_run: str, saved: Saved, folder: Path
) -> None:
    from mlflow.entities import LoggedModelOutput

    model = client.create_logged_model(
        sweep.info.experiment_id,
        MODEL,
        sweep.info.run_id,
        tags={TAGS.key: trial.key, NOTE_TAG: model_note(sweep, trial)},
        params={name: str(value) for name, value in trial.run.flat().items()},
    )
    try:
        client.log_model_artifacts(model.model_id, str(_written(model, sweep, saved, folder)))
        _link_metrics(client, model, trial, trial_run)
        client.log_outputs(sweep.info.run_id, [LoggedModelOutput(model.model_id, step=0)])
        client.finalize_logged_model(model.model_id, "READY")
    except Exception:
        with suppress(Exception):
            client.delete_logged_model(model.model_id)
        raise


def _written(model: "LoggedModel", sweep: "Run", saved: Saved, folder: Path) -> Path:
    """Write the files of the model. Returns their folder."""
    # Slow to import.
    import mlflow.pyfunc
    from mlflow.models.model import MLMODEL_FILE_NAME, Model

    # Two thirds of a checkpoint. Only further training would need it.
    saved.state["optimizer"]["state"] = {}
    weights = folder / Path(CHECKPOINT).name
    checkpoint.save_snapshot(weights, saved)
    description = Model(
        artifact_path=model.artifact_location,
        run_id=sweep.info.run_id,
        model_uuid=model.model_id,
        model_id=model.model_id,
    )
    mlflow.pyfunc.save_model(
        folder / "files",
        python_model=str(_CODE),
        artifacts={"checkpoint": str(weights)},
        model_config={"trust_code": False},  # whoever loads the model may say otherwise
        mlflow_model=description,
        pip_requirements=[_requirement("memmeta"), _requirement("torch")],
    )
    # Paths on this machine mean nothing elsewhere. MLflow uses the file names alone.
    flavor = description.flavors[mlflow.pyfunc.FLAVOR_NAME]
    flavor[mlflow.pyfunc.model.MODEL_CODE_PATH] = _CODE.name
    flavor["artifacts"]["checkpoint"]["uri"] = CHECKPOINT
    description.save(folder / "files" / MLMODEL_FILE_NAME)
    return folder / "files"


def _requirement(package: str) -> str:
    """The installed version of a package, without the suffix of a local build such as +cpu."""
    return f"{package}=={version(package).partition('+')[0]}"


def _link_metrics(
    client: "MlflowClient", model: "LoggedModel", trial: Entry, trial_run: str
) -> None:
    """Show the trial's final metrics on the model's page. They are in the trial's run already."""
    from mlflow.entities import Metric

    last = trial.reported["reports"][-1]
    metrics = [
        Metric(name, value, milliseconds(last), last["step"], model_id=model.model_id)
        for name, value in trial.reported["metrics"].items()
        if name.startswith(("val_", "test_"))
    ]
    client.log_batch(trial_run, metrics)
