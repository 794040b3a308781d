"""The ledger on real journal files. A driver that dies is one that is never heard of again."""

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution

from memmeta.config import DataConfig, TrainingConfig
from memmeta.errors import InputError
from sweeps.engine.ledger import Ledger, only_one, result_of
from sweeps.engine.study import Study

STUDY = Study("s", DataConfig(), TrainingConfig(iterations=10), trials=4)


def open_ledger(folder, study=STUDY, seed=0):
    return Ledger(study, seed, Path(folder))


def complete(accuracy):
    return {"status": "complete", "metrics": {"val_accuracy": accuracy, "val_interval": 0.01}}


def test_what_was_told_is_there_after_reopening(tmp_path):
    ledger = open_ledger(tmp_path)
    trial, run = ledger.ask()
    ledger.tell(trial, complete(0.5))
    (found,) = open_ledger(tmp_path).finished
    assert found.params == trial.params
    assert result_of(found) == complete(0.5)
    assert run["learner"]["inner_lr"] == found.params["inner_lr"]


def test_what_was_interrupted_is_asked_for_again_first(tmp_path):
    ledger = open_ledger(tmp_path)
    interrupted = [ledger.ask()[1] for _ in range(2)]
    ledger = open_ledger(tmp_path)
    again = [ledger.ask()[1] for _ in range(3)]
    assert again[:2] == interrupted
    assert again[2] not in interrupted


@settings(max_examples=20)
@given(st.lists(st.sampled_from(["ask", "tell", "die"]), max_size=25))
def test_nothing_is_lost_and_nothing_runs_twice(events):
    with tempfile.TemporaryDirectory() as folder:
        ledger, running, told, begun = open_ledger(folder), [], [], []
        for event in events:
            if event == "ask":
                trial, run = ledger.ask()
                running.append((trial, run))
                assert run not in told
                begun += [run] if run not in begun else []
            elif event == "tell" and running:
                trial, run = running.pop(0)
                ledger.tell(trial, complete(0.5))
                told.append(run)
            elif event == "die":
                ledger, running = open_ledger(folder), []
        ledger = open_ledger(folder)
        assert len(ledger.finished) == len(told)
        left = [run for run in begun if run not in told]
        again = [ledger.ask()[1] for _ in left]
        assert sorted(map(str, again)) == sorted(map(str, left))


def test_infeasible_trials_count_but_are_not_ranked(tmp_path):
    ledger = open_ledger(tmp_path)
    for status in ("diverged", "complete", "out_of_memory"):
        trial, _ = ledger.ask()
        metrics = complete(0.4)["metrics"] if status == "complete" else {}
        ledger.tell(trial, {"status": status, "metrics": metrics})
    ledger = open_ledger(tmp_path)
    assert len(ledger.finished) == 3
    assert [result_of(trial)["status"] for trial in ledger.ranked] == ["complete"]


def test_the_sampler_learns_where_trials_diverge(tmp_path):
    # Accuracy rises with inner_lr up to the border at 0.5, beyond which everything diverges. The
    # best lies on the border, so trials fall on both sides of it; if failures were not told, the
    # sampler would go back beyond it five times out of six.
    study = replace(STUDY, space={"inner_lr": FloatDistribution(0.1, 1.0)})
    ledger = open_ledger(tmp_path, study)
    for _ in range(60):
        trial, run = ledger.ask()
        lr = run["learner"]["inner_lr"]
        if lr > 0.5:
            ledger.tell(trial, {"status": "diverged", "metrics": {}})
        else:
            ledger.tell(trial, complete(lr))
    late = ledger.finished[30:]
    feasible = [trial for trial in late if result_of(trial)["status"] == "complete"]
    assert len(feasible) > len(late) / 3


def test_trials_after_reopening_are_new_ones(tmp_path):
    params = []
    for _ in range(4):
        ledger = open_ledger(tmp_path)
        for _ in range(2):
            trial, _ = ledger.ask()
            ledger.tell(trial, complete(0.5))
            params.append(trial.params["inner_lr"])
    assert len(set(params)) == len(params)


def test_other_settings_are_refused_with_what_differs(tmp_path):
    open_ledger(tmp_path)
    other = replace(STUDY, space=dict(STUDY.space) | {"ridge": FloatDistribution(0.1, 0.2)})
    with pytest.raises(InputError, match=r"space\.ridge\.attributes\.high was 1\.0, is 0\.2"):
        open_ledger(tmp_path, other)


def test_a_damaged_journal_is_refused(tmp_path):
    (tmp_path / "journal.log").write_bytes(b"\x00garbage\n{}\n")
    with pytest.raises(InputError, match=r"journal\.log"):
        open_ledger(tmp_path)


def test_one_driver_at_a_time(tmp_path):
    with only_one(tmp_path), pytest.raises(InputError, match="already running"), only_one(tmp_path):
        pass
    with only_one(tmp_path):
        pass
