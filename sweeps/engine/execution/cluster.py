"""The Ray cluster: found, connected to, and waited for where its machines start on demand."""

import atexit
import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import ray
from ray._private.services import canonicalize_bootstrap_address
from ray.util.placement_group import placement_group, remove_placement_group
from rich.console import Console

from memmeta.errors import InputError
from memmeta.system.plain_yaml import read_yaml
from memmeta.system.runtime import ALLOCATOR_ENVIRONMENT
from memmeta.system.stopping import STOP, heed_signals
from sweeps.engine.stores.masking import reason

Node = dict[str, Any]
"""As `ray.nodes` has it."""

_BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")
"""Where `ray up` leaves the cluster's YAML on the head, for the autoscaler there."""

_PATIENCE = 30 * 60.0
"""Seconds after which no machine is expected any more: a GPU takes a few minutes to come."""

_REMINDER = 60.0
"""Seconds between two lines that say what the sweep waits for."""

_ANSWER = 10.0
"""Seconds within which a cluster's head accepts a connection."""

_POLL = 1.0
"""Seconds between two looks at the cluster."""

_SILENCES = 5
"""So many times in a row that nobody listens mean that nobody will."""

GO_ON = "; the same command goes on from here"


def running() -> str | None:
    """The address of the running cluster that a sweep uses; None: there is none.

    It is the one that `RAY_ADDRESS` names, or one that `ray start` began on this machine.

    Raises:
        InputError: `RAY_ADDRESS` is no address.
    """
    try:
        # What `ray.init` asks, before it starts a cluster of its own.
        address: str | None = canonicalize_bootstrap_address(None)
    except ValueError as error:
        raise InputError(f"RAY_ADDRESS={os.environ.get('RAY_ADDRESS')}: {error}") from None
    return address


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """The Ray cluster at `address`, or else this machine as one.

    Raises:
        click.ClickException: the cluster does not answer, does not take this process, or is lost
            on the way; or Ray does not start on this machine.
    """
    where = address or "this machine"
    try:
        if address:
            _knock(address)
        # Of a node that fails Ray would print the end of its log, fifty lines.
        ray._private.worker.print_to_stdstream = lambda *_, **__: None
        with _own_signals():
            ray.init(
                address=address or "local",
                log_to_driver=False,
                logging_level=logging.ERROR,
                include_dashboard=False,
                runtime_env={"env_vars": ALLOCATOR_ENVIRONMENT},
                **({} if address else {"_temp_dir": short_folder()}),
            )
    # Of what goes wrong while it starts, Ray raises some as plain Exceptions.
    except Exception as error:
        raise click.ClickException(f"{where}: no Ray cluster to use ({reason(error)})") from None
    watch = _Watch(where)
    try:
        yield
    except (Exception, KeyboardInterrupt):
        if not watch.lost:
            raise
        watch.end()
        # Before what Ray does at the end of a process, for which it would wait for the cluster.
        atexit.register(_leave)
        raise click.ClickException(watch.lost) from None
    finally:
        watch.end()
        if not watch.lost:
            _disconnect()


def _leave() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _disconnect() -> None:
    # Tune leaves references to Ray's objects in cycles, and any thread that allocates may come to
    # collect them. Were it another one while Ray shuts down, Ray would end the process.
    gc.disable()
    gc.collect()
    ray.shutdown()
    gc.enable()


@contextmanager
def _own_signals() -> Iterator[None]:
    """Start Ray within it: the signals stay this process' own.

    Ray would set a handler of SIGTERM. And of a terminal that closes all its processes would hear,
    and end before trials are saved: what they ignore from their start they go on to ignore.
    """
    ray._private.utils.set_sigterm_handler = lambda *_: None
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)
        heed_signals()
    # An interrupt that arrives inside a destructor or a callback of C is lost.
    if STOP.requested:
        raise KeyboardInterrupt


def short_folder() -> str | None:
    """A folder for the files of Ray on this machine; None: the one that Ray would choose.

    Sockets are among them, whose paths have to be short, and schedulers give jobs long ones.

    Raises:
        OSError: there is no such folder.
    """
    chosen = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    if len(os.fsencode(chosen)) + len(_SOCKET) <= _LONGEST_SOCKET:
        return None
    for folder in ("/tmp", "/var/tmp", "/dev/shm"):
        if os.access(folder, os.W_OK | os.X_OK):
            return f"{folder}/ray"
    raise OSError(f"{chosen} is too long for the paths of sockets: set RAY_TMPDIR to a shorter one")


_SOCKET = "/ray/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store.10"
"""Where Ray puts sockets, below the folder for temporary files."""

_LONGEST_SOCKET = 103
"""Bytes of a socket's path, on the system that takes fewest."""


class _Watch:
    """Looks whether the cluster is alive: Ray itself waits for minutes, and then ends the process.

    Attributes:
        lost: says what no longer answers; None: all does.
    """

    def __init__(self, where: str) -> None:
        self.lost: str | None = None
        self._where = where
        self._main = threading.main_thread().ident
        self._ended = threading.Event()
        signal.signal(signal.SIGUSR2, signal.default_int_handler)
        self._thread = threading.Thread(target=self._run, name="cluster watch", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Look no more."""
        self._ended.set()

    def _run(self) -> None:
        head = ray.get_runtime_context().gcs_address
        own = ray.get_runtime_context().get_node_id()
        node = next(node for node in ray.nodes() if node["NodeID"] == own)
        raylet = f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}"
        silent = dict.fromkeys((head, raylet), 0)
        while not self._ended.wait(_POLL):
            for address in silent:
                silent[address] = silent[address] + 1 if _is_silent(address) else 0
            if max(silent.values()) >= _SILENCES:
                what = "Ray's head" if silent[head] else "Ray's process of this machine (raylet)"
                self.lost = f"{self._where}: {what} no longer answers{GO_ON}"
                self._interrupt()
                return

    def _interrupt(self) -> None:
        assert self._main is not None
        signal.pthread_kill(self._main, signal.SIGUSR2)
        # It may be inside Ray, where nothing reaches it.
        if not self._ended.wait(_ANSWER):
            click.echo(f"Error: {self.lost}", err=True)
            _leave()


def _is_silent(address: str) -> bool:
    try:
        _knock(address)
    except OSError:
        return True
    return False


def _knock(address: str) -> None:
    """Raise an OSError where nobody listens: Ray would try for many minutes."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER).close()


def alive_nodes() -> list[Node]:
    """The nodes that are there now."""
    return [node for node in ray.nodes() if node["Alive"]]


def trial_nodes(nodes: list[Node], cpus: int) -> list[Node]:
    """Those of `nodes` that can run trials of so many CPUs: where any has a GPU, those with one."""
    with_gpus = [node for node in nodes if node["Resources"].get("GPU")]
    return [node for node in with_gpus or nodes if node["Resources"].get("CPU", 0) >= cpus]


def wait_for_nodes(console: Console, cpus: int) -> None:
    """Wait until a node can run trials of so many CPUs, and has a GPU where GPUs are to come.

    Meanwhile the cluster knows that one is wanted, for as long as this process lives.

    Raises:
        click.ClickException: none came in half an hour.
    """
    gpus_come = _types_with_gpus()
    if _there(cpus, gpus_come):
        return
    # Without the cluster's YAML it may have GPUs to offer, or CPUs alone.
    wanted = [{"GPU": 1, "CPU": cpus}] if gpus_come else [{"GPU": 1, "CPU": cpus}, {"CPU": cpus}]
    what = "a GPU" if gpus_come else f"a machine with {cpus} CPU{'s' if cpus > 1 else ''}"
    # Groups rather than `request_resources`, which outlives a killed driver, and costs money.
    groups = [placement_group([bundle]) for bundle in wanted]
    begun, said = time.monotonic(), 0
    try:
        while not _there(cpus, gpus_come):
            waited = time.monotonic() - begun
            if waited > _PATIENCE:
                raise click.ClickException(
                    f"{what} did not come in {_PATIENCE / 60:.0f} minutes: `ray status` on the "
                    "head says what the cluster tries. The same command goes on from here"
                )
            if waited >= said * _REMINDER:
                said += 1
                minutes, seconds = divmod(int(waited), 60)
                console.print(
                    f"waiting for {what}: the cluster starts machines, "
                    f"which takes minutes ({minutes}:{seconds:02d} so far)",
                    soft_wrap=True,
                )
            time.sleep(_POLL)
    finally:
        for group in groups:
            remove_placement_group(group)


def _there(cpus: int, gpus_come: bool) -> bool:
    nodes = trial_nodes(alive_nodes(), cpus)
    return any(node["Resources"].get("GPU") or not gpus_come for node in nodes)


def _types_with_gpus() -> bool:
    """Whether the autoscaler may start machines with GPUs: Ray itself does not say."""
    try:
        config: Any = read_yaml(_BOOTSTRAP.expanduser())
        types = config["available_node_types"].values()
        return any(
            kind.get("resources", {}).get("GPU") and kind.get("max_workers", 1) for kind in types
        )
    except (InputError, KeyError, TypeError, AttributeError):
        return False
