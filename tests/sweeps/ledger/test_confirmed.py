"""The trial whose model represents a sweep."""

from memmeta.metric import MSE
from sweeps.engine.ledger.confirmed import best_confirmed
from tests.sweeps.ledger.test_ledger import failure, open_ledger, result


def confirmed(tmp_path, *trials):
    """The name of the best of these trials: params, seed, and accuracy or status."""
    ledger = open_ledger(tmp_path)
    for index, (ridge, seed, outcome) in enumerate(trials):
        ticket = ledger.begin("confirm", index, {"ridge": ridge}, seed)
        done = failure(outcome) if isinstance(outcome, str) else result(outcome)
        # The worst config on validation tasks is the best one on test tasks.
        done["metrics"] = done["metrics"] | {"test_accuracy": -float(index)}
        ledger.report(ticket, done)
    best = best_confirmed(ledger.entries("confirm"), ledger.objective.metric)
    return best and best.name


def test_the_best_seed_of_the_best_mean(tmp_path):
    trials = [(0.1, 1, 0.9), (0.1, 2, 0.1), (0.2, 1, 0.5), (0.2, 2, 0.7)]
    assert confirmed(tmp_path, *trials) == "confirm 003"


def test_a_config_with_more_complete_seeds_comes_first(tmp_path):
    trials = [(0.1, 1, 0.9), (0.1, 2, "diverged"), (0.2, 1, 0.5), (0.2, 2, 0.4)]
    assert confirmed(tmp_path, *trials) == "confirm 002"


def test_without_a_complete_trial_there_is_none(tmp_path):
    assert confirmed(tmp_path, (0.1, 1, "diverged")) is None


def test_a_small_error_is_better_than_a_large_one(tmp_path):
    ledger = open_ledger(tmp_path)
    for index, error in enumerate((0.9, 0.2)):
        done = result(0.5)
        done["metrics"] = done["metrics"] | {"val_mse": error}
        ledger.report(ledger.begin("confirm", index, {"ridge": 0.1 + index / 10}, 1), done)
    assert best_confirmed(ledger.entries("confirm"), MSE).name == "confirm 001"
