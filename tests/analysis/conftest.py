"""One MLflow store for all tests, written by the code that writes it in a sweep."""

import time
from pathlib import Path

import pytest

from memmeta.config import DataConfig
from sweeps.engine.store import default_uri
from sweeps.engine.study import Study
from sweeps.engine.tracking import Tracker
from tests.analysis.stand_ins import TRAINING, FakeTune, write_diverged, write_mixed, write_single


@pytest.fixture(scope="session")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep's folder whose store has several studies, seeds and experiments.

    `mixed` with seeds 0 and 1 (all diverged), the latter begun first, and two sweeps of one
    name of `single`.
    """
    storage = tmp_path_factory.mktemp("sweep results")
    for name, seed, experiment, write in (
        ("mixed", 1, "mixed", write_diverged),
        ("mixed", 0, "renamed by its user", write_mixed),
        ("single", 0, "single", write_single),
        ("single", 0, "of a colleague", write_single),
    ):
        study = Study(name=name, data=DataConfig(), training=TRAINING, trials=4)
        tracker = Tracker(study, seed, default_uri(storage), experiment, storage)
        write(FakeTune(tracker))
        tracker.close(finished=True, summary={})
        time.sleep(0.01)  # Stores tell the time in milliseconds.
    return storage
