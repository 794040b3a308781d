"""Creating and opening stores."""

import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient

from sweeps.engine.stores import artifacts
from sweeps.engine.stores.store import connect, database_file, default_uri, make_database
from tests import ROOT

MAKE = (
    "import sys; from sweeps.engine.stores.store import make_database; make_database(sys.argv[1])"
)

FOLDERS = ["a b", "a?b", "a%2Fb", "a%20b", "a#b", "ü", "a&b=c", "100%", "it's", "a:b@c", "$(x)"]


@pytest.mark.slow
def test_a_process_killed_while_creating_a_database_leaves_none(tmp_path):
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


@pytest.mark.slow
def test_processes_that_create_a_database_at_once_share_it(tmp_path):
    """The slower threads start before the database exists. All write to it at once."""
    uri = default_uri(tmp_path)

    def make(name):
        make_database(uri)
        MlflowClient(uri).create_experiment(name)

    first, *others = (threading.Thread(target=make, args=(f"sweep {n}",)) for n in range(3))
    first.start()
    while not any(path.stat().st_size for path in tmp_path.glob(".mlflow.db.*.partial")):
        time.sleep(0.01)
    for thread in others:
        thread.start()
    for thread in (first, *others):
        thread.join()
    names = {experiment.name for experiment in MlflowClient(uri).search_experiments()}
    assert names == {"Default", "sweep 0", "sweep 1", "sweep 2"}
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1))
def test_the_address_of_a_storage_leads_to_its_database(name):
    storage = Path("/somewhere") / name
    assert database_file(default_uri(storage)) == storage.resolve() / "mlflow.db"


@pytest.mark.parametrize("name", FOLDERS)
def test_mlflow_opens_the_database_in_any_folder_and_creates_no_other(
    name, empty_store, tmp_path, monkeypatch
):
    storage = tmp_path / name
    storage.mkdir()
    shutil.copy(empty_store, storage / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    relative = Path(name)
    assert default_uri(relative) == default_uri(storage)
    uri = default_uri(relative)
    place, tags = artifacts.location(uri, storage / "artifacts")
    client = connect(uri)
    run = client.create_run(client.create_experiment("e", place, tags))
    client.log_text(run.info.run_id, "words", "report/page.html")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    (page,) = storage.rglob("page.html")
    assert page.is_relative_to(storage / "artifacts" / run.info.run_id)
    assert {path.name for path in storage.iterdir()} == {"mlflow.db", "artifacts"}


def test_options_in_the_address_are_not_part_of_the_path(empty_store, tmp_path):
    uri = f"{default_uri(tmp_path)}?timeout=5"
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    make_database(uri)
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]
    assert database_file(uri) == tmp_path / "mlflow.db"
    assert MlflowClient(uri).search_experiments()


@pytest.mark.parametrize(
    "uri", ["sqlite://", "sqlite:///:memory:", "http://host", "postgresql://h/db", "nonsense"]
)
def test_other_stores_have_no_database_file(uri):
    assert database_file(uri) is None


def test_an_existing_database_is_kept(tmp_path):
    (tmp_path / "mlflow.db").write_text("theirs")
    make_database(default_uri(tmp_path))
    assert (tmp_path / "mlflow.db").read_text() == "theirs"
