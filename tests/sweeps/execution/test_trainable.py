"""The trainable without Ray: checkpoints, errors and results."""

from functools import cache
from pathlib import Path

import pytest
import torch

from memmeta import checkpoint, data
from memmeta.errors import DivergedError
from memmeta.run import load
from memmeta.training import MetaTrainer
from sweeps.engine.execution.trainable import MetaTrainable
from sweeps.engine.ledger.folder import SweepFolder
from tests.sweeps.tiny import STUDY

CONFIG = {
    "test": False,
    "evaluate_on": (),
    "resources": {"CPU": 1},
    "predicted": 0,
    "reserved": 2**40,
    "overhead": 0,
}


@cache
def claimed(folder: Path) -> SweepFolder:
    folder.mkdir(exist_ok=True)
    return SweepFolder.claimed(folder)


def begun(data_root: Path, folder: Path, **learner: object) -> MetaTrainable:
    # The constructor would look for a cluster.
    trial = MetaTrainable.__new__(MetaTrainable)
    config = CONFIG | {"run": STUDY.run_config(learner, seed=0).model_dump()}
    trial.setup(config, data_root, claimed(folder))
    return trial


def test_the_time_of_a_trial_includes_earlier_runs(data_root, tmp_path, monkeypatch):
    monkeypatch.setattr("sweeps.engine.execution.trainable.limits.cap", lambda *_: None)
    first = begun(data_root, tmp_path).step()
    monkeypatch.setattr("memmeta.training.time.perf_counter", iter(range(1000)).__next__)
    second, third = (begun(data_root, tmp_path).step() for _ in range(2))
    assert [each["step"] for each in (first, second, third)] == [2, 4, 6]
    assert first["seconds"] > 0
    assert third["seconds"] > second["seconds"] > 0
    assert third["seconds"] > 1  # the fake clock of the second trainer counts seconds


def test_a_long_step_resumes_in_the_middle(data_root, tmp_path, monkeypatch):
    monkeypatch.setattr("sweeps.engine.execution.trainable.limits.cap", lambda *_: None)
    whole = begun(data_root, tmp_path / "whole").step()
    monkeypatch.setattr("memmeta.checkpoint.BETWEEN_SAVES", 0.0)
    taken, step = [], MetaTrainer.step

    def interrupted(trainer):
        if len(taken) == 1:
            taken.append(None)
            raise KeyboardInterrupt
        taken.append(trainer.iteration)
        return step(trainer)

    monkeypatch.setattr(MetaTrainer, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        begun(data_root, tmp_path / "lost").step()
    again = begun(data_root, tmp_path / "lost").step()
    assert taken == [0, None, 1]
    assert again["metrics"] == whole["metrics"]
    assert again["step"] == whole["step"] == 2


def damaged(path, _):
    path.write_text("damaged")


def a_folder(path, _):
    path.mkdir()


def of_another_run(path, trial):
    trial.run = trial.run.model_copy(update={"seed": 9})
    trial.step()
    trial.checkpoint_file.rename(path)


@pytest.mark.parametrize("unusable", [damaged, a_folder, of_another_run])
def test_an_unusable_checkpoint_is_set_aside_and_the_trial_starts_over(
    data_root, tmp_path, monkeypatch, unusable
):
    monkeypatch.setattr("sweeps.engine.execution.trainable.limits.cap", lambda *_: None)
    whole = begun(data_root, tmp_path / "whole").step()
    trial = begun(data_root, tmp_path)
    path = trial.checkpoint_file
    path.parent.mkdir()
    unusable(path, begun(data_root, tmp_path))
    result = trial.step()
    (note,) = result["notes"]
    assert str(path) in note
    assert "trainer.pt.damaged-1" in note
    assert (path.parent / "trainer.pt.damaged-1").exists()
    assert (result["status"], result["step"]) == ("running", 2)
    assert result["metrics"] == whole["metrics"]


def test_a_trial_does_not_continue_on_other_data(data_root, tmp_path, monkeypatch):
    monkeypatch.setattr("sweeps.engine.execution.trainable.limits.cap", lambda *_: None)
    begun(data_root, tmp_path).step()
    trial = begun(data_root, tmp_path)
    content = torch.load(trial.checkpoint_file)
    checkpoint.write(trial.checkpoint_file, content | {"data_digest": "another"})
    result = trial.step()
    assert result["status"] == "failed"
    assert "other data" in result["message"]
    assert "\n" not in result["message"]


@pytest.mark.parametrize(("ridge", "unsolved"), [(0.1, False), (1e-4, True)])
def test_unsolved_linear_systems_are_reported_at_the_end_of_a_trial(
    data_root, tmp_path, monkeypatch, ridge, unsolved
):
    monkeypatch.setattr("sweeps.engine.execution.trainable.limits.cap", lambda *_: None)
    trial = begun(data_root, tmp_path, ridge=ridge, inner_steps=20, cg_steps=4)
    results = [trial.step() for _ in range(3)]
    assert [result["status"] for result in results] == ["running", "running", "complete"]
    residuals = [result["metrics"]["cg_residual"] for result in results]
    assert all((residual > 1) == unsolved for residual in residuals)
    assert ["message" in result for result in results] == [False, False, unsolved]
    if unsolved:
        assert "CG residual" in results[-1]["message"]


def finished(trial):
    result = trial.step()
    while result["status"] == "running":
        result = trial.step()
    return result


def test_a_confirmed_trial_is_scored_on_other_data(two_data_sets, tmp_path, monkeypatch):
    monkeypatch.setattr("sweeps.engine.execution.trainable.limits.cap", lambda *_: None)
    monkeypatch.setitem(CONFIG, "test", True)
    alone = finished(begun(two_data_sets, tmp_path))
    assert "other_digests" not in alone
    monkeypatch.setitem(CONFIG, "evaluate_on", ("fc100",))
    trial = begun(two_data_sets, tmp_path)
    result = finished(trial)
    fc100 = data.load("fc100", two_data_sets)
    expected = load(trial.checkpoint_file, device="cpu").evaluate("test", data=fc100)
    assert result["metrics"] == alone["metrics"] | {
        "test_accuracy_fc100": expected.value,
        "test_interval_fc100": expected.interval,
    }
    assert result["other_digests"] == {"fc100": fc100.digest}


def test_scores_on_other_data_that_are_not_finite_leave_the_trial_complete(
    two_data_sets, tmp_path, monkeypatch
):
    monkeypatch.setattr("sweeps.engine.execution.trainable.limits.cap", lambda *_: None)
    monkeypatch.setitem(CONFIG, "test", True)
    monkeypatch.setitem(CONFIG, "evaluate_on", ("fc100",))

    evaluate = MetaTrainer.evaluate

    def diverging(trainer, split, tasks, dataset=None):
        if dataset is not None:
            raise DivergedError(trainer.iteration)
        return evaluate(trainer, split, tasks)

    monkeypatch.setattr(MetaTrainer, "evaluate", diverging)
    result = finished(begun(two_data_sets, tmp_path))
    assert result["status"] == "complete"
    assert "test_accuracy" in result["metrics"]
    assert "test_accuracy_fc100" not in result["metrics"]
    assert "fc100" in result["other_digests"]
    assert result["notes"] == ["scores on fc100 are not finite"]
