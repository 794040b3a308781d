"""Checks of this machine, or of the cluster that a sweep would use from here."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, NamedTuple

import click
import ray
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from memmeta import data
from memmeta.errors import InputError
from memmeta.system import files, provenance
from sweeps.engine.execution import cluster
from sweeps.engine.execution.cluster import Node
from sweeps.engine.execution.preflight import answered, ask, marked, software, view_problems
from sweeps.engine.stores.masking import masked
from sweeps.engine.stores.store import (
    AwayError,
    check_database,
    connect,
    database_file,
    explained,
)

State = Literal["ok", "warning", "failed"]

_COLOURS: dict[State, str] = {"ok": "green", "warning": "yellow", "failed": "bold red"}

_LITTLE_SPACE = 2**30
"""Bytes below which a sweep of small models may fill the disk."""

_LIST_GPUS = """\
import json, torch
cards = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
print(json.dumps([f"{card.name}, {card.total_memory / 2**30:.0f} GiB" for card in cards]))
"""


class Check(NamedTuple):
    """One thing that was looked at."""

    name: str
    state: State
    text: str


def examine(
    data_root: Path, cache: Path | None, storage: Path, tracking_uri: str
) -> Iterator[Check]:
    """Look at everything that a sweep needs. Starts nothing, and creates nothing that stays.

    Args:
        data_root: folder with the data sets.
        cache: folder of their caches; None: in the data root.
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
    """Print the checks, a line each. Returns the exit code: 1 if any failed."""
    table = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
    failed = False
    for check in checks:
        state = Text(check.state, style=_COLOURS[check.state])
        table.add_row(state, check.name, Text(check.text))
        failed |= check.state == "failed"
    console.print(table)
    return int(failed)


def _storage(storage: Path) -> Check:
    there = _nearest(storage)
    try:
        # What permissions say is not the whole truth: of root, or of a read-only file system.
        files.check_writable(there / "doctor")
    except OSError as error:
        return Check("storage", "failed", f"{storage}: cannot be written ({error.strerror})")
    free = shutil.disk_usage(there).free
    state: State = "warning" if free < _LITTLE_SPACE else "ok"
    return Check("storage", state, f"{storage}: can be written, {free / 2**30:.1f} GiB free")


def _nearest(storage: Path) -> Path:
    """The folder, or the nearest one above it that there is: a first sweep makes the rest."""
    return next(path for path in (storage, *storage.parents) if path.exists())


def found_data(data_root: Path, cache: Path | None = None) -> list[str]:
    """The data sets that a trial on this machine can load."""
    return [name for name, problem in _tried(data_root, cache).items() if not problem]


def _tried(data_root: Path, cache: Path | None) -> dict[str, str]:
    """For each data set found: why a trial cannot load it, or "" if it can."""
    tried = {}
    for name in data.SOURCES:
        try:
            data.try_out(name, data_root, cache)
        except data.NoDataError:
            continue
        except InputError as error:
            tried[name] = error.message
        else:
            tried[name] = ""
    return tried


def _data(data_root: Path, cache: Path | None) -> Iterator[Check]:
    tried = _tried(data_root, cache)
    found = [name for name, problem in tried.items() if not problem]
    missing = [name for name in data.SOURCES if name not in tried]
    text = f"{data_root}: {', '.join([*found, 'sinusoid'])}"
    yield Check("data", "ok", text + (f"; not there: {', '.join(missing)}" if missing else ""))
    for name, problem in tried.items():
        if problem:
            # Nobody put a drawn data set there, so its cache may never be needed.
            state: State = "warning" if data.SOURCES[name].drawn and found else "failed"
            yield Check(f"data {name}", state, problem)


def _tracking(uri: str) -> Check:
    shown = masked(uri)
    try:
        with explained(uri):
            path = database_file(uri)
            if path is not None:
                if not path.exists():
                    return Check("tracking", "ok", f"{shown}: made by the first sweep")
                check_database(path)
            connect(uri).search_experiments(max_results=1)
    except AwayError as error:
        return Check("tracking", "warning", f"{error.message}: a sweep waits for it")
    except InputError as error:
        return Check("tracking", "failed", error.message)
    return Check("tracking", "ok", f"{shown}: can be read")


def _machines(data_root: Path, cache: Path | None, storage: Path) -> Iterator[Check]:
    try:
        address = cluster.running()
        if address is None:
            cores = os.cpu_count()
            text = f"none runs here: a sweep uses this machine alone, {cores} CPUs"
            yield Check("cluster", "ok", text)
            yield Check("GPUs", "ok", ", ".join(list_gpus()) or "none")
            return
        with cluster.connected(address):
            yield from _cluster(address, data_root, cache, storage)
    except click.ClickException as error:
        yield Check("cluster", "failed", error.message)


def _cluster(address: str, data_root: Path, cache: Path | None, storage: Path) -> Iterator[Check]:
    nodes = cluster.alive_nodes()
    cpus, gpus = (
        sum(node["Resources"].get(resource, 0) for node in nodes) for resource in ("CPU", "GPU")
    )
    text = f"{address}: {len(nodes)} nodes, {cpus:.0f} CPUs, {gpus:.0f} GPUs"
    # A cluster that starts machines on demand may well have none.
    yield Check("cluster", "ok" if cpus else "warning", text)
    try:
        with marked(_nearest(storage)) as marker:
            views = [ask(node, view_problems, software(), marker) for node in nodes]
            cards = [ask(node, list_gpus) for node in nodes]
            sets = [ask(node, found_data, data_root, cache) for node in nodes]
            found = found_data(data_root, cache)
            for node, view, card, there in zip(nodes, views, cards, sets, strict=True):
                yield from _node(node, marker, found, view, card, there)
    except OSError as error:
        yield Check("storage", "failed", f"{storage}: cannot be written ({error.strerror})")


def _node(
    node: Node,
    marker: Path,
    found: list[str],
    view: Any,
    cards: Any,
    there: Any,
) -> Iterator[Check]:
    name = f"node {node['NodeManagerAddress']}"
    problems = answered(node, view, marker)
    if problems:
        yield Check(name, "failed", "; ".join(problems))
        return
    yield Check(name, "ok", "same versions, code and storage")
    yield _gpus(name, ray.get(cards), int(node["Resources"].get("GPU", 0)))
    missing = [name for name in found if name not in ray.get(there)]
    if missing and node["Resources"].get("CPU"):
        yield Check(name, "warning", f"data that is here and not there: {', '.join(missing)}")


def _gpus(name: str, cards: list[str], known: int) -> Check:
    text = f"GPUs: {', '.join(cards) or 'none'}"
    if known > len(cards):
        return Check(name, "failed", f"{text}; Ray has {known} that PyTorch cannot use")
    if known < len(cards):
        return Check(name, "warning", f"{text}; Ray was started with {known}")
    return Check(name, "ok", text)


def list_gpus() -> list[str]:
    """The GPUs that PyTorch can use on this machine, in a process that Ray hides none from."""
    environment = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
    command = [sys.executable, "-c", _LIST_GPUS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    cards: list[str] = json.loads(done.stdout) if done.returncode == 0 else []
    return cards
