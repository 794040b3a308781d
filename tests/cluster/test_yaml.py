"""The launch files, checked without a cluster."""

import re
import subprocess
import tomllib
from importlib.metadata import version
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from tests import ROOT

CLUSTER = ROOT / "cluster"
PINS = dict(
    line.split("==")
    for line in (CLUSTER / "constraints.txt").read_text().splitlines()
    if not line.startswith("#")
)
RAY = PINS["ray"]
PYTHON = "py311"

PROVIDER_KEYS = {
    "gpu": {"type", "region", "availability_zone", "cache_stopped_nodes"},
    "onprem": {"type", "head_ip", "worker_ips"},
}
"""The keys in use, as Ray spells them. Ray ignores keys that it does not know."""
NODE_KEYS = {
    "InstanceType", "ImageId", "SecurityGroupIds", "BlockDeviceMappings", "InstanceMarketOptions",
}  # fmt: skip
"""Keys of EC2's RunInstances, which is not called here."""

LAUNCHED = pytest.mark.parametrize("name", ["gpu", "onprem"])


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((CLUSTER / f"{name}.yaml").read_text())


def commands(config: dict[str, Any]) -> list[str]:
    return [line for key, value in config.items() if key.endswith("_commands") for line in value]


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


@LAUNCHED
def test_ray_accepts_it(name):
    validate_config(prepare_config(read(name)))


@LAUNCHED
def test_keys_that_ray_does_not_check_are_known(name):
    config = read(name)
    assert set(config["provider"]) == PROVIDER_KEYS[name]
    for node in config.get("available_node_types", {}).values():
        assert set(node["node_config"]) <= NODE_KEYS


@LAUNCHED
def test_every_command_is_valid_shell(name):
    for command in commands(read(name)):
        # Ray wraps commands like this.
        subprocess.run(["bash", "-n", "-c", f"true && ({command})"], check=True)


@LAUNCHED
def test_the_mounts_exist_and_contain_the_package(name):
    mounts = read(name)["file_mounts"]
    assert "~/memmeta" not in mounts  # it would hide the package
    own = {remote: local for remote, local in mounts.items() if remote.startswith("~/src/")}
    assert all(remote == f"~/src/{local}" for remote, local in own.items())
    assert all((ROOT / local).exists() for local in own.values())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    include = project["tool"]["setuptools"]["packages"]["find"]["include"]
    packages = {pattern.removesuffix("*") for pattern in include}
    files = {project["project"]["readme"], *project["project"]["license-files"], "pyproject.toml"}
    assert packages | files | {"cluster", ".git"} == set(own.values())


@LAUNCHED
def test_packages_are_installed_with_the_constraints_file(name):
    installs = [line for line in commands(read(name)) if "pip install" in line]
    assert installs
    assert all("-c cluster/constraints.txt" in line for line in installs)


@LAUNCHED
def test_the_cluster_requires_a_token_that_is_not_in_the_repository(name):
    config = read(name)
    assert "RAY_AUTH_MODE=token" in " ".join(config["setup_commands"])
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert not re.search(r"[0-9a-f]{32}", (CLUSTER / f"{name}.yaml").read_text())


@LAUNCHED
def test_no_password_in_the_git_folder_is_copied(name):
    config = read(name)
    assert config["file_mounts"]["~/src/.git"] == ".git"
    assert "/config" in config["rsync_exclude"]


@LAUNCHED
def test_no_file_of_the_project_is_left_out(name):
    """Rsync applies the patterns for the git folder to all mounts."""
    config = read(name)
    anchored = {p[1:] for p in config["rsync_exclude"] if p.startswith("/")}
    anywhere = {p for p in config["rsync_exclude"] if not p.startswith("/")}
    for folder in ("memmeta", "sweeps", "analysis", "cluster"):
        assert folder in config["file_mounts"].values()
        for path in (ROOT / folder).rglob("*.*"):
            parts = path.relative_to(ROOT / folder).parts
            assert parts[0] not in anchored
            assert not anywhere & {*parts} or "__pycache__" in parts


def test_no_password_in_the_git_folder_is_in_an_image():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {".git/config", ".git/logs", "data", "runs", ".venv"} <= set(ignored)


@LAUNCHED
def test_servers_listen_only_on_the_head(name):
    lines = " ".join(commands(read(name)))
    assert "--dashboard-host=127.0.0.1" in lines
    assert "mlflow server --host 127.0.0.1" in lines


@LAUNCHED
def test_studies_get_storage_data_and_tracking_from_the_environment(name):
    from sweeps.engine.command_line import _command

    told = re.findall(r"export (\w+)=", " ".join(read(name)["setup_commands"]))
    understood = {option.envvar for option in _command.params if option.envvar}
    places = {"MEMMETA_STORAGE", "MEMMETA_DATA_ROOT", "MLFLOW_TRACKING_URI"}
    assert places <= set(told)
    assert places <= understood


def test_no_port_is_open_to_the_world():
    config = read("gpu")
    # Without a configured group, Ray creates one that opens port 22 to the world.
    for node in config["available_node_types"].values():
        assert node["node_config"]["SecurityGroupIds"]
    assert "security_group" not in config["provider"]
    assert "0.0.0.0" not in (CLUSTER / "gpu.yaml").read_text()


def test_gpus_scale_with_the_trials_and_the_head_has_none():
    config = prepare_config(read("gpu"))
    head = config["available_node_types"][config["head_node_type"]]
    gpu = config["available_node_types"]["gpu"]
    assert head["resources"] == {"CPU": 0}
    assert (head["min_workers"], head["max_workers"]) == (0, 0)
    assert (gpu["min_workers"], gpu["max_workers"]) == (0, config["max_workers"])
    assert 0 < config["idle_timeout_minutes"] <= 10
    assert config["provider"]["cache_stopped_nodes"] is False


def test_one_line_makes_workers_spot_instances():
    node = read("gpu")["available_node_types"]["gpu"]["node_config"]
    assert node["InstanceMarketOptions"] == {"MarketType": "spot"}
    lines = (CLUSTER / "gpu.yaml").read_text().splitlines()
    assert sum("spot}" in line for line in lines) == 1


def test_images_have_the_pinned_ray_and_this_python():
    assert version("ray") == RAY
    docker = read("gpu")["docker"]
    assert docker["head_image"] == f"rayproject/ray:{RAY}-{PYTHON}-cpu"
    assert docker["worker_image"] == f"rayproject/ray:{RAY}-{PYTHON}-gpu"
    assert f"python{PYTHON[2]}.{PYTHON[3:]} -m venv" in " ".join(read("onprem")["setup_commands"])


def test_on_premise_machines_use_the_first_autoscaler():
    lines = " ".join(read("onprem")["head_start_ray_commands"])
    assert "RAY_enable_autoscaler_v2=0 ray start --head" in lines


def test_the_kubernetes_cluster_has_the_same_settings():
    job = read("rayjob")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert job["spec"]["shutdownAfterJobFinishes"] is True
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == RAY
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    (gpu,) = cluster["workerGroupSpecs"]
    assert (gpu["replicas"], gpu["minReplicas"]) == (0, 0)
    assert gpu["maxReplicas"] > 0


def test_on_kubernetes_all_pods_have_the_image_the_storage_and_the_settings():
    cluster = read("rayjob")["spec"]["rayClusterSpec"]
    pods = [
        group["template"]["spec"]
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])
    ]
    for pod in pods:
        (container,) = pod["containers"]
        assert container["image"].endswith(f":ray-{RAY}-{PYTHON}-gpu")
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert {e["name"] for e in container["env"]} == {
            "MEMMETA_STORAGE", "MEMMETA_DATA_ROOT", "MLFLOW_TRACKING_URI",
        }  # fmt: skip
        (mount,), (volume,) = container["volumeMounts"], pod["volumes"]
        assert mount["name"] == volume["name"]
        assert mount["mountPath"] == "/mnt/shared"
