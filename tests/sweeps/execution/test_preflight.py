"""Checks of nodes before they get trials, on real Ray clusters."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray
from ray import tune
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console

from memmeta import data
from memmeta.errors import InputError
from memmeta.registry import ImportPath
from sweeps.engine.execution import cluster, preflight
from sweeps.engine.execution import nodes as ray_nodes
from sweeps.engine.execution.own_code import OwnCode
from sweeps.engine.execution.preflight import DriverView, check_nodes, guarded, marked, software
from sweeps.engine.execution.trainable import MetaTrainable
from sweeps.engine.ledger.folder import SweepFolder
from sweeps.engine.ledger.ledger import Ledger
from tests import ROOT
from tests.sweeps.tiny import STUDY

LATE_NODE = ROOT / "tests" / "sweeps" / "late_node.py"
RAY = Path(sys.executable).with_name("ray")
SIZE = {"object_store_memory": 80 * 2**20}


def other_code(folder: Path) -> Path:
    """A copy of the packages, with another comment."""
    for package in ("memmeta", "sweeps"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("*.pyc"))
    with (folder / "memmeta" / "__init__.py").open("a") as file:
        file.write("# edited\n")
    return folder


def no_code(folder: Path) -> Path:
    """Packages that fail to import."""
    (folder / "sweeps").mkdir(parents=True)
    (folder / "sweeps" / "__init__.py").write_text("raise ImportError('nothing here')\n")
    return folder


def driver_view(marker: Path, data_root: Path, **changes) -> DriverView:
    digests = {"glyphs": data.load("glyphs", data_root).digest}
    view = DriverView(software(), marker, digests, data_root)
    return view._replace(**changes)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """A head without CPUs and three nodes. One of these has other code, and one has none."""
    folder = tmp_path_factory.mktemp("code")
    paths = {"other": other_code(folder / "other"), "none": no_code(folder / "none")}
    running = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **SIZE})
    try:
        added = {"head": running.head_node, "good": running.add_node(num_cpus=1, **SIZE)}
        for name, path in paths.items():
            search = {"PYTHONPATH": str(path)}
            added[name] = running.add_node(num_cpus=1, env_vars=search, **SIZE)
        with pytest.MonkeyPatch.context() as patch:
            # Workers import from the driver's working directory first.
            patch.chdir(folder)
            with cluster.connected(running.address):
                yield {name: node.node_id for name, node in added.items()}
    finally:
        running.shutdown()


@pytest.mark.faults
@pytest.mark.usefixtures("nodes")
def test_every_node_with_problems_is_one_line(tmp_path, data_root):
    console = Console(quiet=True)
    with marked(tmp_path) as marker, pytest.raises(InputError) as raised:
        check_nodes(console, driver_view(marker, data_root), cpus=1)
    title, *lines = raised.value.message.splitlines()
    assert title == "not started, since trials would fail or differ:"
    assert len(lines) == 2
    assert all(re.match(r"node \d+\.\d+\.\d+\.\d+: ", line) for line in lines)
    assert sum("the code does not run there (ImportError: nothing here)" in x for x in lines) == 1
    ours = preflight.code_digest()
    assert sum("memmeta's code is " in x and f"the driver's is {ours}" in x for x in lines) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.faults
def test_data_is_checked_on_the_nodes_that_run_trials(nodes, tmp_path, data_root, monkeypatch):
    sound = [n for n in ray_nodes.alive_nodes() if n["NodeID"] in (nodes["head"], nodes["good"])]
    assert len(sound) == 2
    monkeypatch.setattr(preflight, "alive_nodes", lambda: sound)
    console = Console(quiet=True)
    with marked(tmp_path) as marker:
        view = driver_view(marker, data_root)
        check_nodes(console, view, cpus=1)
        with pytest.raises(InputError) as raised:
            check_nodes(console, view._replace(digests={"miniimagenet": "0"}), cpus=1)
    lines = raised.value.message.splitlines()
    assert len(lines) == 2
    assert "miniimagenet: no data found" in lines[1]


@pytest.mark.faults
@pytest.mark.usefixtures("nodes")
def test_a_node_without_shared_storage_is_reported(tmp_path, data_root, monkeypatch):
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("only root can give a node a file system of its own")
    storage = tmp_path / "storage"
    storage.mkdir()
    known = {node["NodeID"] for node in ray.nodes()}
    address = ray.get_runtime_context().gcs_address
    start = f"{RAY} start --address={address} --num-cpus=1 --block"
    process = subprocess.Popen(
        [
            "unshare",
            "--mount",
            "sh",
            "-c",
            f"mount -t tmpfs tmpfs {storage} && exec {start}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 300
        while not (new := [n for n in ray_nodes.alive_nodes() if n["NodeID"] not in known]):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        monkeypatch.setattr(preflight, "alive_nodes", lambda: new)
        with marked(storage) as marker, pytest.raises(InputError) as raised:
            check_nodes(Console(quiet=True), driver_view(marker, data_root), cpus=1)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()
    _, line = raised.value.message.splitlines()
    assert line.endswith(f"{storage} is not the driver's folder: the storage has to be shared")


@pytest.mark.parametrize(
    ("types", "has_gpus"),
    [
        ("{gpu: {resources: {CPU: 4, GPU: 1}, max_workers: 8}}", True),
        ("{cpu: {resources: {CPU: 4}}, gpu: {resources: {GPU: 4}}}", True),
        ("{gpu: {resources: {GPU: 1}, max_workers: 0}, cpu: {resources: {CPU: 4}}}", False),
        ("{local.cluster.node: {node_config: {}}}", False),
        ("", False),
    ],
)
def test_the_yaml_on_the_head_tells_whether_gpus_can_start(types, has_gpus, tmp_path, monkeypatch):
    path = tmp_path / "ray_bootstrap_config.yaml"
    monkeypatch.setattr(ray_nodes, "_BOOTSTRAP", path)
    assert not ray_nodes._can_start_gpus()
    path.write_text(f"available_node_types: {types}\n")
    assert ray_nodes._can_start_gpus() == has_gpus


def test_another_data_set_of_the_same_name_is_reported(tmp_path, data_root):
    view = driver_view(tmp_path, data_root, digests={"glyphs": "0"})
    assert preflight._data_problems(view) == [f"{data_root}: another glyphs than the driver's"]


def test_every_data_set_that_differs_is_reported(tmp_path, data_root):
    digests = {"glyphs": "0", "miniimagenet": "0", "tieredimagenet": "0"}
    problems = preflight._data_problems(driver_view(tmp_path, data_root, digests=digests))
    names = [("another glyphs" in p, "no data" in p) for p in problems]
    assert names == [(True, False), (False, True), (False, True)]


@pytest.mark.faults
def test_a_sweep_waits_for_a_machine_and_reports_it(sweep):
    code, output = sweep.run(script=LATE_NODE)
    assert code == 0, output
    assert "waiting for a machine with 1 CPU: the cluster starts machines" in output
    assert re.search(r"on the Ray cluster at \d+\.\d+\.\d+\.\d+:\d+ \(RAY_ADDRESS=local: ", output)
    assert "checking storage, versions and data of nodes: 2" in output
    assert output.count(" %   (") + output.count(" %\n") >= 4
    assert list(sweep.storage.glob("*/.nodes-*")) == []


@pytest.mark.faults
def test_nothing_runs_on_a_node_with_other_code(sweep, tmp_path):
    sweep.environment["LATE_PYTHONPATH"] = str(other_code(tmp_path / "other"))
    code, output = sweep.run(script=LATE_NODE)
    assert code == 2, output
    assert "memmeta's code is" in output
    assert "Traceback" not in output
    assert not list(sweep.storage.glob("*/checkpoints/*"))


@pytest.mark.faults
def test_ctrl_c_ends_the_waiting(sweep):
    sweep.environment["LATE_SECONDS"] = "600"
    process = sweep.start(script=LATE_NODE)
    for line in process.stdout:
        if line.startswith("waiting for"):
            break
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert output.splitlines()[-1] == "stopped by Ctrl-C"
    assert "Traceback" not in output


@pytest.mark.faults
def test_a_machine_with_too_few_cpus_is_reported_at_once(sweep):
    code, output = sweep.run("--cpus-per-trial", "1000")
    assert code == 2, output
    assert "1000 CPUs per trial: this machine has" in output
    # Nothing is left behind that would affect another study of this name or show in the UI.
    (folder,) = sweep.storage.glob("tiny-*")
    assert Ledger(STUDY, 0, folder).settings == {}
    assert not (sweep.storage / "mlflow.db").exists()


@pytest.mark.faults
def test_a_node_that_joins_later_is_checked_before_it_trains(nodes, tmp_path, data_root):
    folder = tmp_path / "sweep"
    folder.mkdir()
    with marked(folder) as marker:
        view = driver_view(marker, data_root)
        edited = view._replace(software=view.software | {"memmeta's code": "synced since"})
        other = view._replace(software=view.software | {"torch": "0"})
        gone = view._replace(marker=folder / "elsewhere")
        lacking = view._replace(code=OwnCode((ImportPath("nowhere:make"),)))
        older = view._replace(code=OwnCode(packages=(("optuna", "0.1"),)))
        for expected, said in (
            (edited, None),
            (other, "torch is"),
            (gone, "has to be shared"),
            (lacking, "nowhere cannot be imported"),
            (older, "the driver's is 0.1"),
        ):
            result = ray.get(_first_step(nodes["good"], expected))
            if said is None:
                assert result == {"status": "complete"}
            else:
                assert result["status"] == "failed"
                assert "\n" not in result["message"]
                assert said in result["message"]


def _first_step(node: str, view: DriverView):
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    config = {
        "run": STUDY.run_config({}, seed=0).model_dump(),
        "resources": {"CPU": 1},
        "evaluate_on": (),
        **dict.fromkeys(("test", "predicted", "reserved", "overhead"), 0),
    }

    class Trial(MetaTrainable):
        def step(self):
            return {"status": "complete"}

    def step():
        places = {"data_root": view.data_root, "folder": SweepFolder(Path(), "")}
        return tune.with_parameters(guarded(Trial, view), **places)(config).step()

    return ray.remote(step).options(num_cpus=0, scheduling_strategy=there).remote()
