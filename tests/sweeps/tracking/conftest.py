import shutil

import pytest

from sweeps.engine.stores.store import default_uri
from sweeps.engine.tracking import tracker as tracking


@pytest.fixture(autouse=True)
def no_workers_to_wait_for(monkeypatch):
    monkeypatch.setattr(tracking, "_HEAD_START", 0.0)


@pytest.fixture
def uri(tmp_path, empty_store):
    """A store that several sweeps share."""
    (tmp_path / "shared").mkdir()
    shutil.copy(empty_store, tmp_path / "shared/mlflow.db")
    return default_uri(tmp_path / "shared")
