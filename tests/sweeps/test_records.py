"""An interrupted sweep of version 0.1.0, with one complete trial and one half-way."""

import gzip
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from memmeta import checkpoint
from memmeta.config import LearnerConfig
from memmeta.errors import InputError
from sweeps.engine.ledger.ledger import Ledger
from sweeps.engine.ledger.schedule import Schedule
from sweeps.engine.stores.store import default_uri
from sweeps.engine.study.outcome import TAGS
from sweeps.engine.study.study import read_study
from sweeps.engine.tracking import tracker as tracking
from tests import ROOT

RECORDS = ROOT / "tests" / "records/v1/sweep"
NAME = "old-600steps-seed0"


@pytest.fixture
def storage(tmp_path) -> Path:
    folder = tmp_path / "runs"
    shutil.copytree(RECORDS, folder)
    with gzip.open(folder / "mlflow.db.gz") as packed, (folder / "mlflow.db").open("wb") as file:
        shutil.copyfileobj(packed, file)
    return folder


def test_an_old_ledger_is_read(storage):
    study = read_study(RECORDS / "study.yaml")
    ledger = Ledger(study, 0, storage / NAME, stages=("explore",), name=NAME)
    complete, interrupted = ledger.entries()
    assert (complete.status, interrupted.status) == ("complete", "interrupted")
    assert [report["step"] for report in complete.result["reports"]] == [150, 300, 450, 600]
    assert [report["step"] for report in interrupted.result["reports"]] == [150]
    for entry in (complete, interrupted):
        path = storage / NAME / "checkpoints" / entry.key / "trainer.pt"
        assert checkpoint.load(path).config.key == entry.key
    again = Schedule(ledger, {"explore": 2}).next()
    assert (again.slot, again.run) == (interrupted.slot, interrupted.run)
    other = study.changed(learner=study.learner.model_copy(update={"ridge": 0.5}))
    with pytest.raises(InputError, match=r"learner.ridge was 0\.01, is 0\.5"):
        Ledger(other, 0, storage / NAME, stages=("explore",), name=NAME)


def test_an_old_sweep_keeps_its_runs_in_mlflow(storage, monkeypatch):
    """They have no identity of their sweep, and their artifact folder is elsewhere."""
    monkeypatch.setattr(tracking, "_HEAD_START", 0.0)
    study, uri = read_study(RECORDS / "study.yaml"), default_uri(storage)
    client = MlflowClient(uri)
    number = client.get_experiment_by_name("old").experiment_id
    before = {run.info.run_id: run.info.run_name for run in client.search_runs([number])}
    assert sorted(before.values()) == ["explore 000", "explore 001", NAME]
    ledger = Ledger(study, 0, storage / NAME, stages=("explore",), name=NAME)
    tracker = tracking.Tracker(ledger, NAME, uri, "old", storage / "artifacts")
    assert tracker.close(ledger.entries(), False, {}) is None
    runs = client.search_runs([number])
    assert {run.info.run_id: run.info.run_name for run in runs} == before
    (parent,) = (run for run in runs if run.info.run_name == NAME)
    assert parent.data.tags[TAGS.identity] == ledger.identity
    assert parent.info.artifact_uri.startswith(storage.as_uri())


@pytest.mark.slow
def test_the_same_command_finishes_an_old_sweep(sweep, storage):
    sweep.storage = storage
    script = storage / "study.py"
    script.write_text(
        "from pathlib import Path\n"
        "from sweeps.engine.command_line import main\n"
        "from sweeps.engine.study.study import read_study\n"
        "main(read_study(Path(__file__).with_name('study.yaml')))\n"
    )
    code, output = sweep.run("--stage", "explore", script=script)
    assert code == 0, output
    assert "1 of 2 done" in output
    study = read_study(storage / "study.yaml")
    complete, resumed = Ledger(study, 0, storage / NAME, stages=(), name=NAME).entries()
    assert complete.result["commit"].startswith("178167f")
    assert resumed.status == "complete"
    assert not resumed.result["notes"]
    # This validation is from before the interruption.
    assert resumed.result["reports"][0]["time"] < complete.result["reports"][-1]["time"] + 60
    client = MlflowClient(default_uri(storage))
    experiment = client.get_experiment_by_name("old")
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.info.run_name for run in runs) == ["explore 000", "explore 001", NAME]
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_a_field_added_after_a_sweep_keeps_the_old_behaviour(storage, monkeypatch):
    """Pretend that `ridge` was added later, with a default that differs from the old behaviour."""
    study = read_study(RECORDS / "study.yaml")
    journal = storage / NAME / "journal.log"
    journal.write_text(journal.read_text().replace('"ridge":0.01,', ""))
    monkeypatch.setattr("memmeta.settings.records.values_before", before)
    monkeypatch.setattr("sweeps.engine.study.study.values_before", before)
    ledger = Ledger(study, 0, storage / NAME, stages=("explore",), name=NAME)
    assert {entry.run.learner.ridge for entry in ledger.entries()} == {0.25}
    assert Schedule(ledger, {"explore": 2}).next().run.learner.ridge == 0.25
    explicit = study.changed(learner=LearnerConfig(**study.learner.model_dump() | {"ridge": 0.1}))
    with pytest.raises(InputError, match=r"learner.ridge was 0\.25, is 0\.1"):
        Ledger(explicit, 0, storage / NAME, stages=("explore",), name=NAME)


def before(model):
    return {"ridge": 0.25} if model is LearnerConfig else {}
