"""Sweeps over a field that had another name when they were started."""

import json
from pathlib import Path

import pytest

from memmeta.config import LearnerConfig
from memmeta.errors import InputError
from sweeps.engine.ledger.ledger import Ledger
from tests.sweeps.ledger.test_ledger import STUDY, result

ANIL = STUDY.changed(
    learner=LearnerConfig(algorithm="anil"),
    space={"feature_reuse": [True, False], "inner_lr": {"low": 0.1, "high": 1.0}},
)
NAMES = {"feature_reuse": "kind"}
VALUES = {True: "cached", False: "naive"}


def renamed(value):
    """A record as version 0.1.0 wrote it."""
    if isinstance(value, dict):
        return {
            NAMES.get(key, key): old_values(item) if key in NAMES else renamed(item)
            for key, item in value.items()
        }
    return [renamed(item) for item in value] if isinstance(value, list) else value


def old_values(value):
    return [*map(VALUES.get, value)] if isinstance(value, list) else VALUES[value]


def as_version_1(line):
    record = renamed(json.loads(line))
    if record.get("param_name") == "feature_reuse":
        record["param_name"] = "kind"
        distribution = json.loads(record["distribution"])
        distribution["attributes"]["choices"] = ["cached", "naive"]
        record["distribution"] = json.dumps(distribution)
    return json.dumps(record)


def open_ledger(folder):
    return Ledger(ANIL, 0, Path(folder))


def test_a_sweep_over_a_renamed_field_is_read_and_continues(tmp_path):
    ledger = open_ledger(tmp_path)
    for accuracy in (0.4, 0.5, 0.6, 0.7):
        ledger.report(ledger.propose(), result(accuracy))
    before = ledger.entries()
    assert {entry.run.learner.feature_reuse for entry in before} == {True, False}
    path = tmp_path / "journal.log"
    path.write_text("".join(f"{as_version_1(line)}\n" for line in path.read_text().splitlines()))
    assert "feature_reuse" not in path.read_text()
    ledger = open_ledger(tmp_path)
    assert ledger.entries() == before
    ledger.report(ledger.propose(), result(0.8))
    assert open_ledger(tmp_path).entries()[:4] == before
    assert len(open_ledger(tmp_path).entries()) == 5


@pytest.mark.parametrize(
    "changes",
    [
        {"learner": {"algorithm": "anil", "kind": "naive", "feature_reuse": True}},
        {"grid": {"algorithm": ["anil"], "kind": ["naive"], "feature_reuse": [True]}},
        {"grid": {"algorithm": ["anil"], "feature_reuse": [True], "kind": ["naive"]}},
    ],
)
def test_both_names_of_a_field_are_refused(changes):
    with pytest.raises(InputError, match="kind is the old name of feature_reuse: give one"):
        STUDY.changed(**changes)


def test_a_study_may_use_the_old_name():
    old = STUDY.changed(
        learner=LearnerConfig(algorithm="anil", kind="naive"), space={"kind": ["cached", "naive"]}
    )
    assert [*old.space] == ["feature_reuse"]
    assert old.space["feature_reuse"].choices == (True, False)
    assert not old.learner.feature_reuse
