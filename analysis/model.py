"""The checkpoint of a sweep's best confirmed model, from MLflow."""

from pathlib import Path
from tempfile import TemporaryDirectory

from analysis.records.trials import Sweep
from memmeta.errors import InputError
from sweeps.engine.stores import artifacts
from sweeps.engine.stores.models import CHECKPOINT, find_models, is_complete
from sweeps.engine.stores.store import connect, store_errors_in_one_line


def command_for(path: Path, sweep: Sweep) -> str:
    """A command that uses the model of a sweep. `predict` is for images alone."""
    if not sweep.trials[0].config.data.source.has_classes:
        return f"memmeta evaluate {path}"
    return f"memmeta predict {path} --support FOLDER --query FOLDER --out predictions.csv"


def read_model(uri: str, sweep: Sweep) -> bytes:
    """The checkpoint of the best confirmed model of a sweep, for `memmeta.load`.

    Args:
        uri: the MLflow store.
        sweep: the sweep.

    Raises:
        InputError: the sweep has no confirmed model, or the store does not hand it out.
    """
    if not any(trial.status == "complete" for trial in sweep.trials_in("confirm")):
        raise InputError(
            f"{sweep.name}: has no confirmed model, because stage confirm has no complete trial; "
            "run stage confirm of its study"
        )
    with store_errors_in_one_line(uri, "an MLflow store that has the files of the model"):
        artifacts.follow(uri)
        client = connect(uri)
        run = client.get_run(sweep.trials[0].parent_run_id)
        models = filter(is_complete, find_models(client, run))
        model = next(models, None)
        if model is None:
            raise InputError(
                f"{sweep.name}: its confirmed model is not in MLflow; run its study again, which "
                "sends it"
            )
        # Slow to import. Reads the environment, so it must come inside `store_errors_in_one_line`.
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        repository = get_artifact_repository(model.artifact_location, tracking_uri=uri)
        with TemporaryDirectory() as folder:
            return Path(repository.download_artifacts(CHECKPOINT, folder)).read_bytes()
