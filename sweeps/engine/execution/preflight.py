"""What has to hold on every node of a cluster before it gets a trial."""

import hashlib
import platform
import shutil
from collections.abc import Callable, Iterator
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
from memmeta.errors import InputError
from sweeps.engine.execution.cluster import Node, alive_nodes, trial_nodes
from sweeps.engine.execution.trainable import MetaTrainable
from sweeps.engine.stores.masking import reason

T = TypeVar("T")

_CODE = "memmeta's code"

_MARKER = ".nodes-"
"""Begins the name of a folder in the shared one, in which every node leaves a file."""


class Question(NamedTuple):
    """What a node is asked: whether it sees what the driver sees."""

    software: dict[str, str]
    """As `software`."""
    marker: Path
    """A folder that the driver has just made on the shared storage."""
    dataset: str
    """The name of the data set."""
    digest: str
    """Its content."""
    data_root: Path
    """Where it is looked for."""
    cache: Path | None = None
    """The folder of caches; None: in the data root."""


def software() -> dict[str, str]:
    """The versions that all processes of a sweep must share."""
    return {
        "memmeta": _version("memmeta"),
        _CODE: code_digest(),
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "ray": ray.__version__,
    }


@cache
def code_digest() -> str:
    """12 hex digits of the code that trains and searches, which a version or a commit may hide."""
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
    """A new folder in `folder`, by which nodes know the storage; those of killed drivers go.

    Raises:
        OSError: `folder` cannot be written.
    """
    for left in folder.glob(f"{_MARKER}*"):
        shutil.rmtree(left, ignore_errors=True)
    marker = folder / f"{_MARKER}{uuid4().hex[:8]}"  # no name that a node may remember as missing
    marker.mkdir()
    try:
        yield marker
    finally:
        shutil.rmtree(marker, ignore_errors=True)


def check_nodes(console: Console, question: Question, cpus: int) -> None:
    """Ask every node at once, and fetch or prepare the data where trials will run.

    Args:
        console: where it is said that this may take a while.
        question: what is asked.
        cpus: of a trial.

    Raises:
        InputError: one line for every node with which something is wrong.
    """
    nodes = alive_nodes()
    of_trials = [node["NodeID"] for node in trial_nodes(nodes, cpus)]
    console.print(f"checking storage, versions and data of nodes: {len(nodes)}", soft_wrap=True)
    asked = [ask(node, examine, question, node["NodeID"] in of_trials) for node in nodes]
    wrong = []
    for node, reference in zip(nodes, asked, strict=True):
        problems = answered(node, reference, question.marker)
        # A machine that was just lost counts as alive for a while, and gets no trial.
        if problems and node["NodeID"] in {other["NodeID"] for other in alive_nodes()}:
            wrong.append(f"node {node['NodeManagerAddress']}: {'; '.join(problems)}")
    if wrong:
        raise InputError("\n".join(["not started, since trials would fail or differ:", *wrong]))


def ask(node: Node, function: Callable[..., T], *arguments: object) -> "ray.ObjectRef[T]":
    """Have `function` run on a node, whatever runs there besides."""
    there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    options = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": there}
    reference: ray.ObjectRef[T] = ray.remote(function).options(**options).remote(*arguments)
    return reference


def answered(node: Node, reference: "ray.ObjectRef[list[str]]", marker: Path) -> list[str]:
    """What is wrong with a node by what it says, or does not get to say."""
    try:
        problems = ray.get(reference)
    except ray.exceptions.RayError as error:
        # The last line is Python's: what could not be imported, for instance.
        last = [line.strip() for line in str(error).splitlines() if line.strip()][-1]
        return [f"the code does not run there ({last})"]
    if not problems and not (marker / node["NodeID"]).exists():
        return [f"what it writes to {marker.parent} does not arrive: is that shared?"]
    return problems


def examine(question: Question, trains: bool = True) -> list[str]:
    """What is wrong with this node; to be run there.

    Args:
        question: what is asked.
        trains: whether it will run trials, so that it needs the data.
    """
    problems = view_problems(question.software, question.marker)
    return problems + (_data_problems(question) if trains else [])


def view_problems(expected: dict[str, str], marker: Path) -> list[str]:
    """Where the software or the storage of this node is not the driver's; to be run there."""
    ours = software()
    problems = [
        f"{name} is {ours.get(name)}, the driver's is {theirs}"
        for name, theirs in expected.items()
        if ours.get(name) != theirs
    ]
    return problems + _storage_problems(marker)


def _storage_problems(marker: Path) -> list[str]:
    try:
        if not marker.is_dir():
            return [f"{marker.parent} is not the driver's folder: it has to be shared (--storage)"]
        (marker / ray.get_runtime_context().get_node_id()).touch()
    except OSError as error:
        return [f"{marker.parent} cannot be written ({error.strerror})"]
    return []


def _data_problems(question: Question) -> list[str]:
    try:
        dataset = _load_or_fetch(question.dataset, question.data_root, question.cache)
    except (InputError, OSError) as error:
        return [error.message if isinstance(error, InputError) else reason(error)]
    if dataset.digest != question.digest:
        return [f"{question.data_root}: another {question.dataset} than the driver's"]
    return []


def _load_or_fetch(name: str, data_root: Path, cache: Path | None) -> Dataset:
    try:
        return data.load(name, data_root, cache)
    except data.NoDataError:
        source = data.SOURCES.get(name)
        if source is None or source.download is None:
            raise
    data_root.mkdir(parents=True, exist_ok=True)
    with FileLock(data_root / f".{name}.lock"):
        data.download(name, data_root)
        return data.load(name, data_root, cache)


def guarded(trainable: type[MetaTrainable], question: Question) -> type[MetaTrainable]:
    """`trainable`, asked before its first step: a node may join after the others were checked.

    Code that was synced meanwhile is what somebody wanted, and every trial records its commit.
    """
    expected = {name: theirs for name, theirs in question.software.items() if name != _CODE}
    question = question._replace(software=expected)

    class Guarded(trainable):  # type: ignore[misc, valid-type]
        problems: list[str] | None = None

        def step(self) -> dict[str, Any]:
            if self.problems is None:
                self.problems = examine(question)
            if not self.problems:
                result: dict[str, Any] = super().step()
            else:
                where = f"node {ray.util.get_node_ip_address()}"
                result = self._ended("failed", f"{where}: {'; '.join(self.problems)}")
                result |= self._facts()
            return result

    return Guarded
