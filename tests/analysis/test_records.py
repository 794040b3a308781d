"""Records of earlier versions, kept in `tests/records`, can be read."""

import csv
import gzip
from pathlib import Path

import pytest
import yaml

from analysis.records.trial_table import read_trials, write_trials
from analysis.records.trials import read_sweep
from analysis.verify import read_claim
from memmeta.config import LearnerConfig, values_before
from memmeta.exported import read_run
from sweeps.engine.stores.store import default_uri
from tests import ROOT

# Written by commit 178167f: a sweep of glyphs with the output of `analysis report` and of
# `analysis export --top 3`, and a table of the stand-ins' sweep `mixed` with renamed runs.
V1 = ROOT / "tests" / "records" / "v1"


@pytest.mark.parametrize("name", ["trials.csv", "trials_of_every_status.csv"])
def test_an_old_table_of_trials_is_read(name: str, tmp_path: Path) -> None:
    sweep = read_trials(V1 / name)
    with (V1 / name).open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len(sweep.trials) == len(lines)
    for trial, line in zip(sweep.trials, lines, strict=True):
        known = {name: cell for name, cell in line.items() if hasattr(trial, name)}
        assert {name: as_cell(getattr(trial, name)) for name in known} == known
        flat = trial.config.flat()
        settings = {name: cell for name, cell in line.items() if name in flat}
        assert {name: as_cell(flat[name]) for name in settings} == settings
    write_trials(sweep, tmp_path / "trials.csv")
    assert read_trials(tmp_path / "trials.csv") == sweep


def as_cell(value: object) -> str:
    return "" if value is None else str(value)


def test_an_old_store_is_read_with_former_defaults(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(
        gzip.decompress((V1 / "sweep" / "mlflow.db.gz").read_bytes())
    )
    trials = read_sweep(default_uri(tmp_path), "old").trials
    assert trials
    before = values_before(LearnerConfig)
    for trial in trials:
        assert {name: getattr(trial.config.learner, name) for name in before} == before
        assert trial.config.key == trial.key


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_an_old_exported_file_is_read(rank: int) -> None:
    written = yaml.safe_load((V1 / "best.yaml").read_text())["runs"][rank - 1]
    run = read_run(V1 / "best.yaml", rank)
    config = written["config"]
    assert config["learner"].pop("kind") == "cached"
    assert run.config.learner.feature_reuse
    assert contains(run.model_dump(), written)
    assert read_claim(V1 / "best.yaml", rank).config == run.config


def test_old_names_of_settings_are_read_from_tables() -> None:
    path = ROOT / "docs" / "results" / "inner_loop_cost.csv"
    trials = read_trials(path).trials
    with path.open(newline="", encoding="utf-8") as file:
        kinds = {line["key"]: line["kind"] for line in csv.DictReader(file)}
    assert {*kinds.values()} == {"cached", "naive"}
    for trial in trials:
        assert trial.config.learner.feature_reuse == (kinds[trial.key] == "cached")


def contains(whole: object, part: object) -> bool:
    """Whether `whole` contains `part`. It may have fields of later versions."""
    if isinstance(whole, dict) and isinstance(part, dict):
        return all(name in whole and contains(whole[name], of) for name, of in part.items())
    return whole == part
