"""The data of docs/results.md: the tables of trials and the best configs in the repository."""

from pathlib import Path

import pytest

from analysis.records.trial_table import read_trials
from analysis.report.build import build_report
from analysis.statistics.pareto import REFERENCE_MEMORY
from analysis.verify import read_claim
from sweeps.engine.study.outcome import FINAL
from tests import ROOT


@pytest.mark.parametrize(
    "path", sorted((ROOT / "docs/results").glob("*.csv")), ids=lambda path: path.stem
)
def test_committed_trials_are_final_and_of_committed_code(path: Path) -> None:
    trials = read_trials(path).trials
    assert trials
    assert all(trial.status in FINAL for trial in trials)
    assert not any((trial.commit or "dirty").endswith("dirty") for trial in trials)


def test_committed_trials_can_be_reported_again() -> None:
    sweep = read_trials(min((ROOT / "docs/results").glob("*.csv"), key=lambda p: p.stat().st_size))
    assert build_report(sweep, REFERENCE_MEMORY, "memmeta report", {}).sections


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs/best").glob("*.yaml")), ids=lambda path: path.stem
)
def test_committed_best_configs_can_be_verified(path: Path) -> None:
    claim = read_claim(path, rank=1)
    assert claim.config.data.name == path.stem
    assert claim.config.training.test_tasks >= 1000
    assert claim.fresh_seed.seeds >= 3
