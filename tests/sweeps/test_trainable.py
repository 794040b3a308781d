"""The trainable by itself: what it makes of what it finds, and what it says of it."""

from pathlib import Path

import pytest

from memmeta.training import MetaTrainer
from sweeps.engine.trainable import MetaTrainable
from tests.sweeps.tiny import STUDY

CONFIG = {
    "run": STUDY.run_config({}, seed=0).model_dump(),
    "test": False,
    "resources": {"CPU": 1},
    "predicted": 0,
    "reserved": 2**40,
    "overhead": 0,
}


def begun(data_root: Path, checkpoints: Path) -> MetaTrainable:
    # Ray would give it a folder and look for a cluster.
    trial = MetaTrainable.__new__(MetaTrainable)
    trial.setup(CONFIG, data_root, checkpoints)
    return trial


def test_the_time_of_a_trial_is_that_of_all_its_lives(data_root, tmp_path, monkeypatch):
    monkeypatch.setattr("sweeps.engine.trainable.limits.cap", lambda *_: None)
    first = begun(data_root, tmp_path).step()
    monkeypatch.setattr("memmeta.training.time.perf_counter", iter(range(1000)).__next__)
    second, third = (begun(data_root, tmp_path).step() for _ in range(2))
    assert [each["step"] for each in (first, second, third)] == [2, 4, 6]
    assert first["seconds"] > 0
    assert third["seconds"] > second["seconds"] > 0
    assert third["seconds"] > 1  # of a clock that goes by the second, saved with the second life


def test_a_long_step_goes_on_from_within(data_root, tmp_path, monkeypatch):
    monkeypatch.setattr("sweeps.engine.trainable.limits.cap", lambda *_: None)
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


def test_a_damaged_checkpoint_is_one_line_that_says_what_to_do(data_root, tmp_path, monkeypatch):
    monkeypatch.setattr("sweeps.engine.trainable.limits.cap", lambda *_: None)
    trial = begun(data_root, tmp_path)
    trial.checkpoint_file.parent.mkdir()
    trial.checkpoint_file.write_text("damaged")
    result = trial.step()
    assert (result["status"], result["done"]) == ("failed", True)
    assert result["message"] == (
        f"{trial.checkpoint_file}: not a memmeta checkpoint, or a damaged one; "
        "without it the trial begins anew"
    )
