"""Objectives and constraints."""

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memmeta.metric import ACCURACY, MSE
from sweeps.engine.study.objective import Objective

INF = float("inf")
BOTH = Objective(ACCURACY, ("accuracy", "memory"), memory_limit=1000)


def complete(accuracy, peak):
    return {"status": "complete", "metrics": {"val_accuracy": accuracy}, "peak_memory_bytes": peak}


def test_directions_are_that_of_the_metric_and_less_memory():
    assert BOTH.directions() == ["maximize", "minimize"]
    assert Objective(MSE, ("mse",)).directions() == ["minimize"]
    assert Objective(MSE, ("mse", "memory")).directions() == ["minimize", "minimize"]


def test_values_are_in_the_order_of_the_objective_names():
    assert BOTH.values(complete(0.5, 700)) == [0.5, 700.0]
    assert Objective(ACCURACY, ("accuracy",)).values(complete(0.5, 700)) == [0.5]
    result = {"status": "complete", "metrics": {"val_mse": 2.0}, "peak_memory_bytes": 3}
    assert Objective(MSE, ("mse", "memory")).values(result) == [2.0, 3.0]


@pytest.mark.parametrize("status", ["diverged", "out_of_memory"])
def test_an_infeasible_trial_has_the_worst_values(status):
    result = {"status": status, "metrics": {"val_accuracy": 0.9}, "peak_memory_bytes": 5}
    assert BOTH.values(result) == [0.0, INF]
    assert Objective(MSE, ("mse", "memory")).values({"status": status}) == [INF, INF]


@pytest.mark.parametrize(
    ("result", "diverged", "out_of_memory", "limit"),
    [
        (complete(0.5, 1000), 0, 0, 0),
        (complete(0.5, 1250), 0, 0, 0.25),
        (complete(0.5, 500), 0, 0, -0.5),
        ({"status": "diverged", "peak_memory_bytes": 500}, 1, 0, -0.5),
        ({"status": "out_of_memory", "predicted_memory_bytes": 3000}, 0, 1, 2),
        ({"status": "out_of_memory", "peak_memory_bytes": None}, 0, 1, 0),
        ({"status": "diverged"}, 1, 0, 0),
    ],
)
def test_constraints_have_the_same_names_for_every_result(result, diverged, out_of_memory, limit):
    failures = {"diverged": diverged, "out_of_memory": out_of_memory}
    assert BOTH.constraints(result) == pytest.approx(failures | {"memory_limit": limit})
    assert Objective(ACCURACY, ("accuracy",)).constraints(result) == failures


def test_a_result_is_feasible_within_the_limit_and_without_failure():
    assert BOTH.feasible(complete(0.1, 1000))
    assert not BOTH.feasible(complete(0.9, 1001))
    assert Objective(ACCURACY, ("accuracy",)).feasible(complete(0.9, 1001))
    assert not BOTH.feasible({"status": "diverged", "peak_memory_bytes": 1})


results = st.lists(
    st.builds(complete, st.integers(0, 4).map(lambda n: n / 4), st.integers(1, 5)), max_size=8
)


@given(results)
def test_two_objectives_rank_the_same_pareto_front_as_optuna(found):
    study = optuna.create_study(directions=BOTH.directions())
    for result in found:
        values = [result["metrics"]["val_accuracy"], result["peak_memory_bytes"]]
        study.add_trial(optuna.trial.create_trial(values=values))
    ranked = BOTH.ranked(range(len(found)), found.__getitem__)
    assert sorted(ranked) == sorted(trial.number for trial in study.best_trials)
    accuracies = [found[place]["metrics"]["val_accuracy"] for place in ranked]
    assert accuracies == sorted(accuracies, reverse=True)


@given(results)
def test_one_objective_ranks_all_items_best_metric_first(found):
    ranked = Objective(ACCURACY, ("accuracy",)).ranked(found, lambda result: result)
    accuracies = [result["metrics"]["val_accuracy"] for result in found]
    assert [r["metrics"]["val_accuracy"] for r in ranked] == sorted(accuracies, reverse=True)


def test_a_smaller_error_ranks_first():
    errors = [{"status": "complete", "metrics": {"val_mse": e}} for e in (3.0, 0.5, 40.0)]
    ranked = Objective(MSE, ("mse",)).ranked(errors, lambda result: result)
    assert [result["metrics"]["val_mse"] for result in ranked] == [0.5, 3.0, 40.0]
