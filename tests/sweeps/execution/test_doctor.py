"""`memmeta doctor`, on this machine and on real Ray clusters."""

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
from mlflow import MlflowClient
from ray.cluster_utils import Cluster

from memmeta.system import provenance
from memmeta.system.files import resolved
from sweeps.engine.execution.doctor import _data as checks_of_data
from sweeps.engine.execution.doctor import _storage, _tracking
from sweeps.engine.stores.store import default_uri
from tests import ROOT


def doctor(*options, address="local", python_path="") -> tuple[int, str]:
    """Exit code and output, in a terminal so wide that lines are not wrapped."""
    environment = {"RAY_ADDRESS": address, "PYTHONPATH": python_path, "COLUMNS": "400"}
    command = [sys.executable, "-m", "sweeps", "doctor", *map(str, options)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=os.environ | environment
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done.returncode, done.stdout


def line(output: str, name: str) -> tuple[str, str]:
    """State and text of the first check of that name."""
    found = re.search(rf"^ *(\w+) +{re.escape(name)} +(.*?) *$", output, re.MULTILINE)
    assert found, output
    return found[1], found[2]


@pytest.mark.slow
def test_a_locked_store_is_only_a_warning(tmp_path, empty_store):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        check = _tracking(default_uri(tmp_path))
    assert (check.state, "database is locked" in check.text) == ("warning", True)


def test_a_pipe_in_place_of_a_store_is_reported_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "mlflow.db")
    check = _tracking(default_uri(tmp_path))
    assert (check.state, "not a file" in check.text) == ("failed", True)


def test_a_storage_that_cannot_exist_fails_the_check(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    for name in ("a" * 300, "loop/runs"):
        check = _storage(resolved(tmp_path / name))
        assert (check.state, "cannot be written" in check.text) == ("failed", True)


@pytest.mark.slow
def test_a_good_machine_passes_all_checks_and_no_files_are_created(tmp_path, data_root):
    storage = tmp_path / "runs"
    code, output = doctor("--data-root", data_root, "--storage", storage)
    assert code == 0, output
    assert line(output, "commit") == ("ok", provenance.commit())
    for name in ("memmeta", "Python", "torch", "ray", "optuna", "mlflow", "GPUs"):
        assert line(output, name)[0] == "ok"
    assert line(output, "storage")[1].startswith(f"{storage}: can be written, ")
    assert "glyphs, sinusoid; missing: cifar_fs" in line(output, "data")[1]
    assert "the first sweep creates it" in line(output, "tracking")[1]
    assert "a sweep uses only this machine" in line(output, "cluster")[1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_failed_check_sets_the_exit_code(tmp_path):
    database = tmp_path / "notes.db"
    database.write_text("shopping: bread\n" * 100)
    options = ("--storage", database / "runs", "--tracking-uri", f"sqlite:///{database}")
    code, output = doctor(*options, address="127.0.0.1:1")
    assert code == 1
    assert line(output, "storage")[0] == "failed"
    assert line(output, "storage")[1].startswith(f"{database / 'runs'}: cannot be written (")
    assert line(output, "tracking")[0] == "failed"
    assert line(output, "cluster")[0] == "failed"
    assert "no Ray cluster to use" in line(output, "cluster")[1]
    assert list(tmp_path.iterdir()) == [database]


def test_data_is_ok_if_a_trial_could_load_it(tmp_path, data_root):
    shutil.copytree(data_root / "cache", tmp_path / "cache")
    (tmp_path / "omniglot-py").mkdir()
    for part in ("background", "evaluation"):
        (tmp_path / "omniglot-py" / f"images_{part}.zip").write_text("<html>Sign in</html>")
    before = sorted(tmp_path.rglob("*"))
    checks = {check.name: check for check in checks_of_data(tmp_path, None)}
    assert checks["data"].state == "ok"
    assert ": glyphs, sinusoid; missing: cifar_fs" in checks["data"].text
    assert checks["data omniglot"].state == "failed"
    assert "images_background.zip: a web page, not a zip file" in checks["data omniglot"].text
    assert sorted(tmp_path.rglob("*")) == before


def test_a_cache_that_cannot_be_written_fails_the_check(tmp_path):
    (tmp_path / "file").touch()
    checks = {check.name: check for check in checks_of_data(tmp_path, tmp_path / "file")}
    assert checks["data glyphs"].state == "failed"
    assert "the cache cannot be written" in checks["data glyphs"].text


@pytest.mark.faults
def test_doctor_checks_each_node_of_a_cluster(tmp_path, data_root):
    MlflowClient(default_uri(tmp_path)).create_experiment("there")
    size = {"object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **size})
    try:
        cluster.add_node(num_cpus=1, num_gpus=1, **size)
        options = ("--data-root", data_root, "--storage", tmp_path / "[b]" / "runs")
        options += ("--tracking-uri", default_uri(tmp_path))
        address = cluster.address
        code, output = doctor(*options, address=address)
    finally:
        cluster.shutdown()
    assert line(output, "tracking") == ("ok", f"{default_uri(tmp_path)}: can be read")
    assert line(output, "cluster") == ("ok", f"{address}: 2 nodes, 1 CPUs, 1 GPUs")
    assert output.count("same versions, code and storage") == 2, output
    # The node claims a GPU that does not exist.
    assert code == 1
    assert output.count("GPUs: none; Ray has 1 that PyTorch cannot use") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]
