import pytest

from sweeps.engine.display.table import unsolved
from sweeps.engine.ledger.entry import Entry
from tests.sweeps.tiny import STUDY


def entry(index, status="complete", **result):
    run = STUDY.run_config({}, seed=0)
    return Entry("explore", index, params={}, run=run, status=status, result=result)


def test_the_summary_names_the_trials_whose_linear_systems_stayed_unsolved():
    silent = [entry(0), entry(1, "failed", message="a bug"), entry(2, "diverged", message="why")]
    assert unsolved(silent) is None
    said = unsolved([*silent, entry(3, message="a note")])
    assert "1 trial:" in said
    assert said.endswith("explore 003")


@pytest.mark.parametrize("count", [5, 500])
def test_the_summary_names_a_few_of_many(count):
    said = unsolved([entry(index, message="a note") for index in range(count)])
    assert f"{count} trials" in said
    assert "explore 004" in said
    assert ("explore 005" in said) is False
    assert len(said) < 150
