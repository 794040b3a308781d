"""The best confirmed model of a sweep in MLflow."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.utils.file_utils import local_file_uri_to_path

import memmeta as mm
from memmeta import checkpoint
from memmeta.errors import InputError
from sweeps.engine.stores import artifacts
from sweeps.engine.stores.models import MODEL
from sweeps.engine.stores.store import default_uri
from sweeps.engine.tracking.tracker import Tracker
from tests.mlflow_models import loaded
from tests.mlflow_server import MlflowServer
from tests.sweeps.ledger.test_ledger import STUDY, open_ledger
from tests.sweeps.tracking.driving import NAME, told

X = np.linspace(-4, 4, 6)
TASK = {"support_points": X, "support_values": np.sin(X), "query_points": X + 0.1}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The checkpoint of a small run."""
    path = tmp_path_factory.mktemp("trained") / "model.pt"
    learner = mm.LearnerConfig(backbone="mlp", inner_steps=2)
    mm.train(learner, mm.load_dataset("sinusoid"), tasks=40, val_tasks=4).save(path)
    return path


class Driver:
    """A sweep with confirmed trials, one per accuracy, in a storage folder with its store."""

    def __init__(self, storage: Path, uri: str, accuracies: list[float], store: Path) -> None:
        self.uri, self.client = uri, MlflowClient(uri)
        self.ledger = open_ledger(storage)
        for index, accuracy in enumerate(accuracies):
            ticket = self.ledger.begin("confirm", index, {"inner_lr": 0.1}, 1 + index)
            self.ledger.report(ticket, told([accuracy], "complete"))
        self.tracker = Tracker(self.ledger, NAME, uri, STUDY.name, store)
        assert self.tracker.close(self.ledger.entries(), True, {}) is None

    def log(self, index, read) -> str:
        return self.tracker.log_model(self.ledger.entries("confirm")[index], read)

    def models(self) -> list:
        experiment = self.client.get_experiment_by_name(STUDY.name)
        return self.client.search_logged_models([experiment.experiment_id])


@pytest.fixture
def driver(tmp_path, uri) -> Driver:
    return Driver(tmp_path, uri, [0.3, 0.4], tmp_path / "shared/artifacts")


def test_a_logged_model_predicts_like_its_checkpoint(driver, trained):
    address = driver.log(0, lambda: checkpoint.load(trained))
    (model,) = driver.models()
    (sweep,) = driver.client.search_runs([model.experiment_id], "tags.`memmeta.kind` = 'sweep'")
    assert address == f"runs:/{sweep.info.run_id}/{MODEL}"
    assert [output.model_id for output in sweep.outputs.model_outputs] == [model.model_id]
    assert model.params["inner_lr"] == "0.1"
    assert {metric.key: metric.value for metric in model.metrics}["val_accuracy"] == 0.3
    predicted = loaded(driver.uri, address).predict(TASK)
    regressor = mm.load(trained).adapt_regression(TASK["support_points"], TASK["support_values"])
    np.testing.assert_array_equal(predicted, regressor.predict(TASK["query_points"]))
    with pytest.raises(InputError, match=r"support_points, support_values, query_points.*\['x'\]"):
        loaded(driver.uri, address).predict({"x": 1})


def test_the_files_of_a_model_state_no_paths_and_no_optimiser(driver, trained):
    driver.log(0, lambda: checkpoint.load(trained))
    (model,) = driver.models()
    files = Path(local_file_uri_to_path(model.artifact_location))
    texts = [p.read_text() for p in files.rglob("*") if p.is_file() and p.suffix != ".pt"]
    assert not list(files.rglob("*.pkl"))
    for text in texts:
        assert "memmeta-model-" not in text
        assert str(Path(mm.__file__).parents[1]) not in text
    requirements = (files / "requirements.txt").read_text().split()
    assert f"memmeta=={mm.__version__}" in requirements
    assert all("==" in line and "/" not in line and "+" not in line for line in requirements)
    saved = checkpoint.load(files / "artifacts/model.pt")
    assert saved.state["optimizer"]["state"] == {}
    assert saved.state["model"].keys() == checkpoint.load(trained).state["model"].keys()


def test_a_model_is_logged_once_and_follows_the_best_trial(driver, trained):
    def fail():
        raise AssertionError("the checkpoint is read although the model is in MLflow")

    address = driver.log(0, lambda: checkpoint.load(trained))
    (first,) = driver.models()
    assert driver.log(0, fail) == address
    assert [model.model_id for model in driver.models()] == [first.model_id]
    driver.log(1, lambda: checkpoint.load(trained))
    (second,) = driver.models()
    assert second.model_id != first.model_id
    assert loaded(driver.uri, address).metadata.model_id == second.model_id


def test_models_that_were_deleted_or_not_finished_are_logged_again(driver, trained):
    driver.log(0, lambda: checkpoint.load(trained))
    (model,) = driver.models()
    driver.client.delete_logged_model(model.model_id)
    # A driver was killed during an upload.
    driver.client.create_logged_model(
        model.experiment_id, MODEL, model.source_run_id, tags=model.tags
    )
    driver.log(0, lambda: checkpoint.load(trained))
    (again,) = driver.models()
    assert again.status == "READY"


def test_a_store_without_room_for_files_is_reported_in_one_line(driver, trained, tmp_path):
    blocked = tmp_path / "shared/artifacts"
    blocked.write_text("a file where a folder should be")
    with pytest.raises(InputError) as refusal:
        driver.log(0, lambda: checkpoint.load(trained))
    assert "\n" not in refusal.value.message
    assert str(blocked) in refusal.value.message
    assert driver.models() == []
    blocked.unlink()
    driver.log(0, lambda: checkpoint.load(trained))
    assert len(driver.models()) == 1


def test_a_missing_checkpoint_is_named(driver, tmp_path):
    with pytest.raises(InputError, match=r"gone\.pt: .*No such file"):
        driver.log(0, lambda: checkpoint.load(tmp_path / "gone.pt"))


def test_a_model_moves_with_its_storage(driver, trained, tmp_path):
    address = driver.log(0, lambda: checkpoint.load(trained))
    shutil.move(tmp_path / "shared", tmp_path / "moved")
    uri = default_uri(tmp_path / "moved")
    artifacts.follow(uri)
    assert len(loaded(uri, address).predict(TASK)) == 6


@pytest.mark.thorough
def test_a_server_keeps_the_files_of_a_model(trained, tmp_path, empty_store):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    with MlflowServer(tmp_path) as server:
        driver = Driver(tmp_path, server.address, [0.3], tmp_path / "unused")
        address = driver.log(0, lambda: checkpoint.load(trained))
        assert len(loaded(server.address, address).predict(TASK)) == 6
        assert not (tmp_path / "unused").exists()
