"""`memmeta doctor`: checks of this machine, or of the cluster that a sweep would use."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

import ray
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from memmeta import data
from memmeta.data import own
from memmeta.data.sources import NoDataError
from memmeta.errors import InputError, MessageError, cannot_write
from memmeta.system import files, provenance
from sweeps.engine.execution import cluster
from sweeps.engine.execution.nodes import Node, alive_nodes
from sweeps.engine.execution.preflight import (
    marked,
    reply_problems,
    run_on,
    software,
    view_problems,
)
from sweeps.engine.stores.masking import masked
from sweeps.engine.stores.store import (
    AwayError,
    check_database,
    connect,
    database_file,
    store_errors_in_one_line,
)

State = Literal["ok", "warning", "failed"]

_COLOURS: dict[State, str] = {"ok": "green", "warning": "yellow", "failed": "bold red"}

_LITTLE_SPACE = 2**30
"""Free bytes below which the check warns. Even a sweep of small models may fill the disk then."""

_LIST_GPUS = """\
import json, torch
cards = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
print(json.dumps([f"{card.name}, {card.total_memory / 2**30:.0f} GiB" for card in cards]))
"""


class Check(NamedTuple):
    """The result of one check."""

    name: str
    state: State
    text: str


def examine(
    data_root: Path, cache: Path | None, storage: Path, tracking_uri: str
) -> Iterator[Check]:
    """Check everything that a sweep needs. Starts nothing, and leaves no files behind.

    Args:
        data_root: folder with the data sets.
        cache: folder for prepared data; None: `cache` in the data root.
        storage: folder of all sweeps.
        tracking_uri: MLflow store.
    """
    for name, version in software().items():
        yield Check(name, "ok", version)
    yield Check("commit", "ok", provenance.commit())
    for name in ("optuna", "mlflow"):
        yield Check(name, "ok", metadata.version(name))
    yield _storage(storage)
    yield from _data(data_root, cache)
    yield _tracking(tracking_uri)
    yield from _machines(data_root, cache, storage)


def show(console: Console, checks: Iterator[Check]) -> int:
    """Print one line for each check. Returns the exit code: 1 if any check failed."""
    table = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
    failed = False
    for check in checks:
        state = Text(check.state, style=_COLOURS[check.state])
        table.add_row(state, check.name, Text(check.text))
        failed |= check.state == "failed"
    console.print(table)
    return int(failed)


def _storage(storage: Path) -> Check:
    try:
        existing = _nearest(storage)
        # Permissions alone do not tell, for example for root or on a read-only file system.
        files.check_writable(existing / "doctor")
    except OSError as error:
        return Check("storage", "failed", cannot_write(storage, error).message)
    free = shutil.disk_usage(existing).free
    state: State = "warning" if free < _LITTLE_SPACE else "ok"
    return Check("storage", state, f"{storage}: can be written, {free / 2**30:.1f} GiB free")


def _nearest(storage: Path) -> Path:
    """The folder, or its nearest parent that exists. A sweep creates missing folders."""
    paths = (storage, *storage.parents)
    return next(path for path in paths if path.exists() or path.is_symlink())


def loadable_data(data_root: Path, cache: Path | None = None) -> list[str]:
    """The data sets that a trial on this machine can load."""
    return [name for name, problem in _data_sets(data_root, cache).items() if not problem]


def _data_sets(data_root: Path, cache: Path | None) -> dict[str, str]:
    """The data sets that exist, and why a trial cannot load them ("" if it can)."""
    problems = {}
    own_names = own.names(cache or data_root / "cache")
    for name in (*data.image_sources(), *own_names):
        try:
            data.try_out(name, data_root, cache)
        except NoDataError:
            continue
        except InputError as error:
            problems[name] = error.message
        else:
            problems[name] = ""
    return problems


def _data(data_root: Path, cache: Path | None) -> Iterator[Check]:
    problems = _data_sets(data_root, cache)
    loadable = [name for name, problem in problems.items() if not problem]
    sources = data.image_sources()
    missing = [name for name in sources if name not in problems]
    without_files = [name for name in data.DATA_SETS if name not in sources]
    text = f"{data_root}: {', '.join([*loadable, *without_files])}"
    yield Check("data", "ok", text + (f"; missing: {', '.join(missing)}" if missing else ""))
    for name, problem in problems.items():
        if problem:
            # A generated data set needs no files from the user, so perhaps nobody will use it.
            state: State = (
                "warning" if name in sources and sources[name].drawn and loadable else "failed"
            )
            yield Check(f"data {name}", state, problem)


def _tracking(uri: str) -> Check:
    shown = masked(uri)
    try:
        with store_errors_in_one_line(uri):
            path = database_file(uri)
            if path is not None:
                if not path.exists():
                    return Check("tracking", "ok", f"{shown}: the first sweep creates it")
                check_database(path)
            connect(uri).search_experiments(max_results=1)
    except AwayError as error:
        return Check("tracking", "warning", f"{error.message}: a sweep waits for it")
    except InputError as error:
        return Check("tracking", "failed", error.message)
    return Check("tracking", "ok", f"{shown}: can be read")


def _machines(data_root: Path, cache: Path | None, storage: Path) -> Iterator[Check]:
    try:
        address = cluster.find_cluster()
        if address is None:
            cores = os.cpu_count()
            text = f"none: a sweep uses only this machine, {cores} CPUs"
            yield Check("cluster", "ok", text)
            yield Check("GPUs", "ok", ", ".join(list_gpus()) or "none")
            return
        with cluster.connected(address):
            yield from _cluster(address, data_root, cache, storage)
    except MessageError as error:
        yield Check("cluster", "failed", error.message)


def _cluster(address: str, data_root: Path, cache: Path | None, storage: Path) -> Iterator[Check]:
    nodes = alive_nodes()
    cpus, gpus = (
        sum(node["Resources"].get(resource, 0) for node in nodes) for resource in ("CPU", "GPU")
    )
    text = f"{address}: {len(nodes)} nodes, {cpus:.0f} CPUs, {gpus:.0f} GPUs"
    # A cluster that starts machines on demand may have no CPUs now.
    yield Check("cluster", "ok" if cpus else "warning", text)
    try:
        with marked(_nearest(storage)) as marker:
            replies = [run_on(node, view_problems, software(), marker) for node in nodes]
            gpu_lists = [run_on(node, list_gpus) for node in nodes]
            data_lists = [run_on(node, loadable_data, data_root, cache) for node in nodes]
            expected = loadable_data(data_root, cache)
            for node, reply, gpu_list, data_list in zip(
                nodes, replies, gpu_lists, data_lists, strict=True
            ):
                problems = reply_problems(node, reply, marker)
                yield from _node(node, problems, expected, gpu_list, data_list)
    except OSError as error:
        yield Check("storage", "failed", cannot_write(storage, error).message)


def _node(
    node: Node,
    problems: list[str],
    expected: list[str],
    gpu_list: "ray.ObjectRef[list[str]]",
    data_list: "ray.ObjectRef[list[str]]",
) -> Iterator[Check]:
    """Checks of one node.

    Args:
        node: the node.
        problems: result of `reply_problems`.
        expected: data sets of the driver.
        gpu_list: result of `list_gpus` on the node.
        data_list: result of `loadable_data` on the node.
    """
    name = f"node {node['NodeManagerAddress']}"
    if problems:
        yield Check(name, "failed", "; ".join(problems))
        return
    yield Check(name, "ok", "same versions, code and storage")
    yield _gpus(name, ray.get(gpu_list), int(node["Resources"].get("GPU", 0)))
    found = ray.get(data_list)
    missing = [data_set for data_set in expected if data_set not in found]
    if missing and node["Resources"].get("CPU"):
        yield Check(name, "warning", f"lacks data sets of this machine: {', '.join(missing)}")


def _gpus(name: str, cards: list[str], known: int) -> Check:
    text = f"GPUs: {', '.join(cards) or 'none'}"
    if known > len(cards):
        return Check(name, "failed", f"{text}; Ray has {known} that PyTorch cannot use")
    if known < len(cards):
        return Check(name, "warning", f"{text}; Ray was started with {known}")
    return Check(name, "ok", text)


def list_gpus() -> list[str]:
    """The GPUs that PyTorch can use on this machine.

    They are listed in a process without `CUDA_VISIBLE_DEVICES`, which Ray sets to hide GPUs.
    """
    environment = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
    command = [sys.executable, "-c", _LIST_GPUS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    cards: list[str] = json.loads(done.stdout) if done.returncode == 0 else []
    return cards
