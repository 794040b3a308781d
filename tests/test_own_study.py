"""The study of examples/own_study.py, with code of its own, on a real Ray."""

import os
import shutil
import subprocess
import sys

import mlflow
import numpy as np
import pytest
from click.testing import CliRunner
from mlflow import MlflowClient

from memmeta.__main__ import main
from memmeta.errors import InputError
from sweeps.engine.stores.store import default_uri
from sweeps.engine.study.outcome import TAGS
from tests import ROOT

pytestmark = pytest.mark.slow

SAY_WHERE = """
import os
with open(os.environ["IMPORTS"], "a") as file:
    file.write(__file__ + "\\n")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder in which the example ran. Its file `imports` says where the code was."""
    folder = tmp_path_factory.mktemp("own")
    for name in ("own_study.py", "own_code.py"):
        shutil.copy(ROOT / "examples" / name, folder)
    with (folder / "own_code.py").open("a") as file:
        file.write(SAY_WHERE)
    done = subprocess.run(
        [sys.executable, "own_study.py"],
        cwd=folder,
        env=os.environ
        | {"PYTHONPATH": str(ROOT), "RAY_ADDRESS": "local", "OMP_NUM_THREADS": "1"}
        | {"IMPORTS": str(folder / "imports")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("IMPORTS", str(folder / "others"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return folder


def trial_runs(folder):
    client = MlflowClient(default_uri(folder / "runs"))
    (experiment,) = client.search_experiments(filter_string="name = 'own_study'")
    return client.search_runs([experiment.experiment_id], f"tags.`{TAGS.kind}` = 'trial'")


def test_workers_ran_the_copy_that_travelled_and_recorded_it(folder):
    runs = trial_runs(folder)
    assert [run.data.tags[TAGS.status] for run in runs] == ["complete"] * 4
    assert {run.data.params["algorithm"] for run in runs} <= {"memory_reduced", "own_code:clipped"}
    (digest,) = {run.data.tags[TAGS.code] for run in runs}
    copy = folder / "runs/own_study-200tasks-seed0/code" / digest / "own_code.py"
    assert copy.read_bytes() == (folder / "own_code.py").read_bytes()
    assert {*(folder / "imports").read_text().split()} == {str(copy), str(folder / "own_code.py")}
    assert (folder / "report/report.html").exists()


def test_code_that_has_changed_is_noticed_when_the_sweep_continues(here):
    words = ["sweep", "own_study.py", "--trials", "4"]
    same = CliRunner().invoke(main, words)
    assert same.exit_code == 0, same.output
    assert "has changed" not in same.output
    before = (here / "own_code.py").read_bytes()
    (here / "own_code.py").write_bytes(before + b"# edited\n")
    edited = CliRunner().invoke(main, words)
    (here / "own_code.py").write_bytes(before)
    assert "the code of this study has changed" in edited.output


def test_the_logged_model_runs_own_code_only_if_it_is_trusted(here):
    store = default_uri(here / "runs")
    (experiment,) = MlflowClient(store).search_experiments(filter_string="name = 'own_study'")
    (model,) = MlflowClient(store).search_logged_models([experiment.experiment_id])
    mlflow.set_tracking_uri(store)
    try:
        with pytest.raises(InputError, match="names code, own_code:POLYGONS"):
            mlflow.pyfunc.load_model(f"models:/{model.model_id}")
        address = f"models:/{model.model_id}"
        trusted = mlflow.pyfunc.load_model(address, model_config={"trust_code": True})
    finally:
        mlflow.set_tracking_uri(None)
    images = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 1), dtype=np.uint8)
    task = {"support_images": images[:2], "support_labels": ["a", "b"], "query_images": images}
    assert {*trusted.predict(task)} <= {"a", "b"}


def test_commands_on_results_read_records_that_name_own_code(here):
    listed = CliRunner().invoke(main, ["trials", "own_study"])
    assert listed.exit_code == 0, listed.output
    exported = CliRunner().invoke(main, ["export", "own_study", "--top", "1"])
    assert exported.exit_code == 0, exported.output
    assert "own_code:POLYGONS" in (here / "best.yaml").read_text()
