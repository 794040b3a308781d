"""Checks of every node of a cluster before it gets a trial."""

import hashlib
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from uuid import uuid4

import ray
import torch
from filelock import FileLock
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console

import memmeta
import sweeps.engine
from memmeta import data
from memmeta.data.dataset import Dataset
from memmeta.data.sources import NoDataError
from memmeta.errors import InputError
from sweeps.engine.execution.nodes import Node, alive_nodes, trial_nodes
from sweeps.engine.execution.own_code import NO_OWN_CODE, OwnCode
from sweeps.engine.execution.trainable import MetaTrainable
from sweeps.engine.stores.masking import reason

T = TypeVar("T")

_CODE = "memmeta's code"
"""Key of the code's digest in `software`."""

_MARKER = ".nodes-"
"""Prefix of a folder on the shared storage, in which every node creates a file."""


class DriverView(NamedTuple):
    """Software, storage and data of the driver. A node must have the same."""

    software: dict[str, str]
    """The result of `software`."""
    marker: Path
    """A folder that the driver has just created on the shared storage."""
    digests: Mapping[str, str]
    """SHA-256 of each data set that trials use, by name."""
    data_root: Path
    """Folder with the data sets."""
    cache: Path | None = None
    """Folder for prepared data; None: `cache` in the data root."""
    code: OwnCode = NO_OWN_CODE
    """Code of users that trials import."""


def software() -> dict[str, str]:
    """Versions that must be the same in all processes of a sweep."""
    return {
        "memmeta": _version("memmeta"),
        _CODE: code_digest(),
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "ray": ray.__version__,
    }


@cache
def code_digest() -> str:
    """12 hex digits that identify the code. They also differ for uncommitted changes."""
    digest = hashlib.sha256()
    for package in (memmeta, sweeps.engine):
        assert package.__file__
        folder = Path(package.__file__).parent
        for path in sorted(folder.rglob("*.py")):
            digest.update(f"{path.relative_to(folder)}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


@contextmanager
def marked(folder: Path) -> Iterator[Path]:
    """Create a folder by which nodes recognise the shared storage, and remove it at the end.

    Folders that killed drivers left behind are removed too.

    Raises:
        OSError: `folder` cannot be written.
    """
    for abandoned in folder.glob(f"{_MARKER}*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    # A new name, since nodes may have cached that an old one does not exist.
    marker = folder / f"{_MARKER}{uuid4().hex[:8]}"
    marker.mkdir()
    try:
        yield marker
    finally:
        shutil.rmtree(marker, ignore_errors=True)


def check_nodes(console: Console, view: DriverView, cpus: int) -> None:
    """Check all nodes at once, and download or prepare the data where trials will run.

    Args:
        console: prints that a check has started, since it may take a while.
        view: software, storage and data of the driver.
        cpus: CPUs of a trial.

    Raises:
        InputError: some nodes have problems; one line for each.
    """
    nodes = alive_nodes()
    trial_ids = [node["NodeID"] for node in trial_nodes(nodes, cpus)]
    console.print(f"checking storage, versions and data of nodes: {len(nodes)}", soft_wrap=True)
    replies = [run_on(node, node_problems, view, node["NodeID"] in trial_ids) for node in nodes]
    lines = []
    for node, reply in zip(nodes, replies, strict=True):
        problems = reply_problems(node, reply, view.marker)
        # A machine that was just lost counts as alive for a while, but gets no trial.
        if problems and node["NodeID"] in {other["NodeID"] for other in alive_nodes()}:
            lines.append(f"node {node['NodeManagerAddress']}: {'; '.join(problems)}")
    if lines:
        raise InputError("\n".join(["not started, since trials would fail or differ:", *lines]))


def run_on(node: Node, function: Callable[..., T], *arguments: object) -> "ray.ObjectRef[T]":
    """Start `function` on a node, even if all its CPUs are in use."""
    on_node = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    options = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": on_node}
    reference: ray.ObjectRef[T] = ray.remote(function).options(**options).remote(*arguments)
    return reference


def reply_problems(node: Node, reply: "ray.ObjectRef[list[str]]", marker: Path) -> list[str]:
    """Problems that a node has reported, or that show in its reply.

    Args:
        node: the node.
        reply: result of `node_problems` or `view_problems` on the node.
        marker: folder in which the node should have created a file.
    """
    try:
        problems = ray.get(reply)
    except ray.exceptions.RayError as error:
        # The last line is Python's message, such as an import error.
        last = [line.strip() for line in str(error).splitlines() if line.strip()][-1]
        return [f"the code does not run there ({last})"]
    if not problems and not (marker / node["NodeID"]).exists():
        return [f"its files in {marker.parent} do not arrive: is that folder shared?"]
    return problems


def node_problems(view: DriverView, trains: bool = True) -> list[str]:
    """Problems of the node that runs this function.

    Args:
        view: software, storage and data of the driver.
        trains: whether the node will run trials, so that it needs the data.
    """
    expected = view.software | dict(view.code.packages)
    problems = view_problems(expected, view.marker) + view.code.problems()
    return problems + (_data_problems(view) if trains else [])


def view_problems(expected: dict[str, str], marker: Path) -> list[str]:
    """How software and storage of the node that runs this function differ from the driver's.

    Args:
        expected: the driver's `software`, and versions of further packages.
        marker: folder that the driver has created on the shared storage.
    """
    ours = {name: _version(name) for name in expected} | software()
    problems = [
        f"{name} is {ours[name]}, the driver's is {theirs}"
        for name, theirs in expected.items()
        if ours[name] != theirs
    ]
    return problems + _storage_problems(marker)


def _storage_problems(marker: Path) -> list[str]:
    try:
        if not marker.is_dir():
            return [f"{marker.parent} is not the driver's folder: the storage has to be shared"]
        (marker / ray.get_runtime_context().get_node_id()).touch()
    except OSError as error:
        return [f"{marker.parent} cannot be written ({error.strerror})"]
    return []


def _data_problems(view: DriverView) -> list[str]:
    problems = []
    for name, digest in view.digests.items():
        try:
            dataset = _load_or_download(name, view.data_root, view.cache)
        except (InputError, OSError) as error:
            problems.append(error.message if isinstance(error, InputError) else reason(error))
            continue
        if dataset.digest != digest:
            problems.append(f"{view.data_root}: another {name} than the driver's")
    return problems


def _load_or_download(name: str, data_root: Path, cache: Path | None) -> Dataset:
    try:
        return data.load(name, data_root, cache)
    except NoDataError:
        source = data.image_sources().get(name)
        if source is None or source.download is None:
            raise
    data_root.mkdir(parents=True, exist_ok=True)
    with FileLock(data_root / f".{name}.lock"):
        data.download(name, data_root)
        return data.load(name, data_root, cache)


def guarded(trainable: type[MetaTrainable], view: DriverView) -> type[MetaTrainable]:
    """A trainable that checks its node before the first step, since nodes may join a running sweep.

    The code may differ: the user may have updated it meanwhile, and every trial records its commit.
    """
    expected = {name: theirs for name, theirs in view.software.items() if name != _CODE}
    view = view._replace(software=expected)

    class Guarded(trainable):  # type: ignore[misc, valid-type]
        problems: list[str] | None = None

        def step(self) -> dict[str, Any]:
            if self.problems is None:
                self.problems = node_problems(view)
            report: dict[str, Any]
            if self.problems:
                address = ray.util.get_node_ip_address()
                report = self.failed(f"node {address}: {'; '.join(self.problems)}")
            else:
                report = super().step()
            return report

    return Guarded
