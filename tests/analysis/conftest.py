"""One MLflow store for all tests, written by the code of a real sweep."""

import time
from pathlib import Path

import pytest

from sweeps.engine.stores.store import default_uri
from tests.analysis.stand_ins import (
    begin_mixed,
    continue_mixed,
    driven,
    write_diverged,
    write_grid,
    write_single,
)


@pytest.fixture(scope="session")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep's folder whose store has several studies, seeds and experiments.

    It has `mixed` with seed 1 (all diverged) and then seed 0, two sweeps of `single` with the same
    name, and `factorial`, which has only a grid.
    """
    storage = tmp_path_factory.mktemp("sweep results")
    uri = default_uri(storage)
    for name, seed, experiment, write in (
        ("mixed", 1, "mixed", write_diverged),
        ("mixed", 0, "renamed by its user", begin_mixed),
        ("mixed", 0, "renamed by its user", continue_mixed),
        ("single", 0, "single", write_single),
        ("single", 0, "of a colleague", write_single),
        ("factorial", 0, "factorial", write_grid),
    ):
        with driven(storage / f"{experiment} {seed}", name, seed, uri, experiment) as driver:
            write(driver)
        time.sleep(0.01)  # stores record times in milliseconds
    return storage
