import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from sweeps.engine.masking import without_credentials
from sweeps.engine.store import default_uri, make_database

ROOT = Path(__file__).parents[2]
MAKE = "import sys; from sweeps.engine.store import make_database; make_database(sys.argv[1])"


@pytest.mark.slow
def test_a_killed_maker_of_the_database_leaves_none(tmp_path):
    uri = default_uri(tmp_path)
    maker = subprocess.Popen([sys.executable, "-c", MAKE, uri], cwd=ROOT)
    while not any(path.stat().st_size for path in tmp_path.glob(".mlflow.db.*.partial")):
        assert maker.poll() is None
        time.sleep(0.01)
    maker.kill()
    maker.wait()
    assert not (tmp_path / "mlflow.db").exists()

    make_database(uri)
    (default,) = MlflowClient(uri).search_experiments()
    assert "partial" not in default.artifact_location


def test_options_in_the_address_are_no_part_of_the_file(tmp_path):
    uri = default_uri(tmp_path)
    make_database(f"{uri}?timeout=5")
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]
    assert MlflowClient(f"{uri}?timeout=5").search_experiments()


def test_secrets_among_the_options_of_an_address_are_cut_out():
    said = "mysql://host/db?user=u&password=hunter2&sslmode=on and x://h?auth_token=hunter2"
    shown = without_credentials(said)
    assert shown == "mysql://host/db?user=u&password=***&sslmode=on and x://h?auth_token=***"


def test_a_database_that_is_there_stays(tmp_path):
    (tmp_path / "mlflow.db").write_text("theirs")
    make_database(default_uri(tmp_path))
    assert (tmp_path / "mlflow.db").read_text() == "theirs"
