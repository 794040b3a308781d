"""A whole regression sweep, from the first trial to training the exported best config."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from memmeta.config import DataConfig, LearnerConfig, TrainingConfig
from memmeta.exported import read_run
from sweeps.engine.ledger.ledger import Ledger
from sweeps.engine.stores.store import default_uri
from sweeps.engine.study import Study
from sweeps.engine.study.outcome import TAGS
from tests import ROOT
from tests.sweeps import tiny_regression

SINUSOID = DataConfig(name="sinusoid", ways=1)


def test_the_ledger_minimises_and_ranks_infeasible_trials_last(tmp_path):
    study = Study(
        name="s",
        data=SINUSOID,
        training=TrainingConfig(iterations=10),
        learner=LearnerConfig(backbone="mlp"),
    )
    ledger = Ledger(study, 0, tmp_path)
    for error in (3.0, None, 0.5, 40.0):
        metrics = {"val_mse": error, "val_interval": 0.1}
        told = {
            "status": "complete" if error else "diverged",
            "metrics": metrics if error else {},
            "reports": [],
        }
        ledger.report(ledger.propose(), told)
    ledger = Ledger(study, 0, tmp_path)
    assert ledger.objective.directions() == ["minimize"]
    values = [ledger.objective.values(entry.result)[0] for entry in ledger.finished()]
    assert values == [3.0, float("inf"), 0.5, 40.0]
    ranked = [entry.result["metrics"]["val_mse"] for entry in ledger.ranking()]
    assert ranked == [0.5, 3.0, 40.0]


def python(folder: Path, *words: object) -> str:
    command = [sys.executable, "-m", *map(str, words)]
    done = subprocess.run(
        command,
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.thorough
@pytest.mark.slow
def test_from_the_first_trial_to_training_the_best_config(sweep, tmp_path):
    code, output = sweep.run(script=Path(tiny_regression.__file__))
    assert code == 0, output
    assert "validation MSE" in output
    assert "accuracy" not in output
    assert "%" not in output

    folder = sweep.storage / "tiny_regression-6steps-seed0"
    ranking = Ledger(tiny_regression.STUDY, 0, folder).ranking()
    errors = [entry.result["metrics"]["val_mse"] for entry in ranking]
    client = MlflowClient(default_uri(sweep.storage))
    experiment = client.get_experiment_by_name("tiny_regression")
    (parent,) = client.search_runs([experiment.experiment_id], f"tags.`{TAGS.kind}` = 'sweep'")
    metrics = parent.data.metrics
    assert set(metrics) == {"trials", "val_mse", "val_interval", "peak_memory_mib"}
    assert (metrics["trials"], metrics["val_mse"]) == (3, errors[0])

    place = ["tiny_regression", "--storage", sweep.storage]
    assert "val MSE" in python(tmp_path, "analysis", "trials", *place)
    rows = json.loads(python(tmp_path, "analysis", "trials", *place, "--json"))
    assert [row["val_mse"] for row in rows if row["rank"]] == errors
    assert not any("val_accuracy" in row for row in rows)

    python(tmp_path, "analysis", "export", *place, "--out", "best.yaml")
    assert "by MSE on the validation tasks" in (tmp_path / "best.yaml").read_text()
    assert read_run(tmp_path / "best.yaml").results.val_mse == errors[0]
    trained = python(tmp_path, "memmeta", "train", "best.yaml", "--out", "run.pt")
    assert re.search(r"stated: .*, the same", trained), trained
    assert re.search(r"^MSE:       [\d.]+ ± [\d.]+ on 4", trained, re.MULTILINE), trained
    evaluated = python(tmp_path, "memmeta", "evaluate", "run.pt", "--split", "val")
    assert evaluated.removeprefix("val MSE ").strip() in trained
