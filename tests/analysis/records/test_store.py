"""Uploaded reports go to the current location of the storage."""

import shutil
from pathlib import Path

import pytest

from analysis.records.store import attach
from analysis.records.trials import read_sweep
from sweeps.engine.stores.store import default_uri
from tests.analysis.stand_ins import begin_mixed, continue_mixed, driven


@pytest.fixture
def made(tmp_path: Path, storage: Path) -> Path:
    """A storage with one sweep."""
    made = tmp_path / "made % here"
    made.mkdir()
    shutil.copy(storage / "mlflow.db", made)
    with driven(made / "mixed", "mixed", 7, default_uri(made), "new one") as driver:
        begin_mixed(driver)
    return made


def add(storage: Path, name: str) -> set[str]:
    """Upload a report to the sweep in a storage, and return all report files in the storage."""
    page = storage / name
    page.write_text(name)
    uri = default_uri(storage)
    attach(uri, read_sweep(uri, "mixed-60steps-seed7").trials[0].parent_run_id, storage, [page])
    return {path.name for path in storage.rglob("report/*")}


@pytest.mark.parametrize("move", [shutil.copytree, shutil.move])
@pytest.mark.parametrize("driver", [False, True])
def test_reports_follow_a_moved_or_copied_storage(
    made: Path, tmp_path: Path, move: "type[shutil.move]", driver: bool
) -> None:
    assert add(made, "first.html") == {"first.html"}
    moved = tmp_path / "moved # there"
    move(made, moved)
    left = sorted(made.rglob("*"))
    if driver:  # which opens the store, too
        with driven(moved / "mixed", "mixed", 7, default_uri(moved), "new one") as going_on:
            continue_mixed(going_on)
    assert add(moved, "second.html") == {"first.html", "second.html"}
    assert sorted(made.rglob("*")) == left
    assert len(read_sweep(default_uri(moved), "mixed-60steps-seed7").trials) == 16
