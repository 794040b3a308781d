"""The Ray cluster: finding it, connecting to it, and waiting for machines that start on demand."""

import atexit
import ctypes
import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import ray
from ray._private.services import canonicalize_bootstrap_address
from ray.util.placement_group import placement_group, remove_placement_group
from rich.console import Console

from memmeta.errors import FailedError, InputError
from memmeta.system.plain_yaml import read_yaml
from memmeta.system.runtime import ALLOCATOR_ENVIRONMENT
from memmeta.system.stopping import STOP, heed_signals, postponed
from sweeps.engine.stores.masking import reason

Node = dict[str, Any]
"""A node as described by `ray.nodes`."""

_NEUTRAL = Path("/")
"""A folder without packages. Ray makes its workers search the driver's working directory first, so
the driver connects from here: the working directory may have a folder called `sweeps`. Each node
imports its own code, which `preflight` compares with the driver's."""

_BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")
"""Where `ray up` puts the cluster's YAML on the head, for the autoscaler."""

_START_TIMEOUT = 30 * 60.0
"""Maximum time to wait for a machine, in seconds. A GPU usually starts within minutes."""

_START_SECONDS = 25
"""Time for Ray to start after a signal. Job schedulers kill processes after thirty seconds."""

_REMINDER_SECONDS = 60.0
"""Interval between messages while the sweep waits for machines."""

_CONNECT_TIMEOUT = 10.0
"""Maximum time for connecting to a process of Ray, in seconds."""

_POLL_SECONDS = 1.0
"""Interval between checks of the cluster."""

_FAILED_CHECKS = 5
"""Number of failed connections in a row after which a process of Ray counts as lost."""

CONTINUE_HINT = "; run the sweep again to continue"
"""Ends the message of an error after which a sweep can continue."""


def find_cluster() -> str | None:
    """The address of a running cluster; None if there is none.

    It is the cluster that this process is connected to, the one at `RAY_ADDRESS`, or one that was
    started on this machine with `ray start`.

    Raises:
        InputError: `RAY_ADDRESS` is not an address.
    """
    if ray.is_initialized():
        return str(ray.get_runtime_context().gcs_address)
    try:
        # `ray.init` calls the same function to decide whether to start a new cluster. It accepts
        # None, in spite of its annotation.
        address: str | None = canonicalize_bootstrap_address(None)  # type: ignore[arg-type]
    except ValueError as error:
        raise InputError(f"RAY_ADDRESS={os.environ.get('RAY_ADDRESS')}: {error}") from None
    return address


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connect to the Ray cluster at `address`, or start Ray on this machine if it is None.

    If the program has called `ray.init`, its connection is used and stays open.

    Raises:
        FailedError: the cluster does not answer, refuses this process, or is lost
            meanwhile; or Ray does not start on this machine.
    """
    where = address or "this machine"
    is_ours = not ray.is_initialized()
    # If a node fails, Ray would print the last fifty lines of its log.
    with _replaced(ray._private.worker, "print_to_stdstream", lambda *_, **__: None):
        try:
            if address:
                _try_connection(address)
            if is_ours:
                _connect(address)
        except KeyboardInterrupt:
            # The program may catch it and run another sweep.
            if is_ours:
                _disconnect()
            raise
        # Ray raises some errors during its start as plain Exceptions.
        except Exception as error:
            raise FailedError(f"{where}: no Ray cluster to use ({reason(error)})") from None
        monitor = _ClusterMonitor(where)
        try:
            yield
        except (Exception, KeyboardInterrupt):
            if not monitor.lost:
                raise
            monitor.stop()
            # Exit before Ray's own exit handlers, which would wait for the lost cluster.
            atexit.register(_leave)
            raise FailedError(monitor.lost) from None
        finally:
            monitor.stop()
            if is_ours and not monitor.lost:
                _disconnect()


def _connect(address: str | None) -> None:
    # An interrupt in the middle would leave Ray in a state from which it cannot start again.
    with postponed(_START_SECONDS), _keep_signal_handlers(), chdir(_NEUTRAL):
        ray.init(
            address=address or "local",
            log_to_driver=False,
            logging_level=logging.ERROR,
            include_dashboard=False,
            runtime_env={"env_vars": ALLOCATOR_ENVIRONMENT},
            _temp_dir=None if address else short_folder(),
        )


@contextmanager
def _replaced(module: ModuleType, name: str, function: Callable[..., None]) -> Iterator[None]:
    """Replace a function of Ray that has no switch."""
    before = getattr(module, name)
    setattr(module, name, function)
    try:
        yield
    finally:
        setattr(module, name, before)


def _leave() -> None:
    """Exit at once, without exit handlers."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _disconnect() -> None:
    """Shut Ray down.

    Tune leaves reference cycles with Ray objects. If another thread collected them while Ray shuts
    down, Ray would abort the process.
    """
    gc.disable()
    gc.collect()
    ray.shutdown()
    gc.enable()


@contextmanager
def _keep_signal_handlers() -> Iterator[None]:
    """Keep this process's signal handlers while Ray starts.

    Ray would replace the handler of SIGTERM. Processes of Ray are started with SIGHUP blocked, so
    that they survive a closed terminal until trials are saved. A SIGHUP for this process arrives
    when the signal is unblocked.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    hook, sys.unraisablehook = sys.unraisablehook, _skip_interrupts
    try:
        with _replaced(ray._private.utils, "set_sigterm_handler", lambda *_: None):
            yield
    finally:
        sys.unraisablehook = hook
        heed_signals()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    # An interrupt is lost if it arrives inside a destructor or a C callback.
    if STOP.requested:
        raise KeyboardInterrupt


def _skip_interrupts(unraisable: "sys.UnraisableHookArgs") -> None:
    """Print nothing for an interrupt inside a callback: it is raised again later."""
    if unraisable.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(unraisable)


def short_folder() -> str | None:
    """A folder for Ray's files with a path short enough for sockets; None for Ray's default.

    Job schedulers often set a long path for temporary files.

    Raises:
        OSError: no such folder was found.
    """
    chosen = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    if len(os.fsencode(chosen)) + len(_SOCKET) <= _LONGEST_SOCKET:
        return None
    for folder in ("/tmp", "/var/tmp", "/dev/shm"):
        if os.access(folder, os.W_OK | os.X_OK):
            return f"{folder}/ray"
    raise OSError(f"{chosen} is too long for the paths of sockets: set RAY_TMPDIR to a shorter one")


_SOCKET = "/ray/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store.10"
"""Example of a socket's path below the folder for temporary files."""

_LONGEST_SOCKET = 103
"""Maximum length of a socket's path in bytes, on the system with the lowest limit."""


class _ClusterMonitor:
    """Checks in a thread whether the cluster is alive, and interrupts the sweep if not.

    Ray itself waits for minutes and then aborts the process.

    Attributes:
        lost: an error message if the cluster was lost; None while it is alive.
    """

    def __init__(self, where: str) -> None:
        self.lost: str | None = None
        self._where = where
        self._sweep = threading.current_thread()
        self._stopped = threading.Event()
        if self._sweep is threading.main_thread():
            self._handler = signal.signal(signal.SIGUSR2, signal.default_int_handler)
        self._thread = threading.Thread(target=self._run, name="cluster monitor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop checking."""
        self._stopped.set()
        if self._sweep is threading.main_thread():
            signal.signal(signal.SIGUSR2, self._handler)

    def _run(self) -> None:
        head = ray.get_runtime_context().gcs_address
        own = ray.get_runtime_context().get_node_id()
        node = next(node for node in ray.nodes() if node["NodeID"] == own)
        raylet = f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}"
        failures = dict.fromkeys((head, raylet), 0)
        while not self._stopped.wait(_POLL_SECONDS):
            for address in failures:
                failures[address] = failures[address] + 1 if _is_silent(address) else 0
            if max(failures.values()) >= _FAILED_CHECKS:
                process = (
                    "Ray's head" if failures[head] else "Ray's process on this machine (raylet)"
                )
                self.lost = f"{self._where}: {process} no longer answers{CONTINUE_HINT}"
                self._interrupt()
                return

    def _interrupt(self) -> None:
        assert self._sweep.ident is not None
        if self._sweep is threading.main_thread():
            signal.pthread_kill(self._sweep.ident, signal.SIGUSR2)
        else:
            # Handlers run in the main thread only.
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(self._sweep.ident), ctypes.py_object(KeyboardInterrupt)
            )
        # The sweep may hang inside Ray, where neither has an effect.
        if not self._stopped.wait(_CONNECT_TIMEOUT):
            print(f"Error: {self.lost}", file=sys.stderr)
            _leave()


def _is_silent(address: str) -> bool:
    try:
        _try_connection(address)
    except OSError:
        return True
    return False


def _try_connection(address: str) -> None:
    """Connect and close the connection. Ray itself would try for many minutes.

    Raises:
        OSError: no process listens at `address`.
    """
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_TIMEOUT).close()


def alive_nodes() -> list[Node]:
    """The nodes that are alive now."""
    return [node for node in ray.nodes() if node["Alive"]]


def trial_nodes(nodes: list[Node], cpus: int) -> list[Node]:
    """The nodes that can run trials: only those with a GPU, if there are any.

    Args:
        nodes: nodes to choose from.
        cpus: CPUs of a trial.
    """
    with_gpus = [node for node in nodes if node["Resources"].get("GPU")]
    return [node for node in with_gpus or nodes if node["Resources"].get("CPU", 0) >= cpus]


def wait_for_nodes(console: Console, cpus: int) -> None:
    """Wait until a node can run trials. If the cluster can start GPUs, wait for a GPU.

    The autoscaler sees the request as long as this process lives.

    Args:
        console: where progress is printed.
        cpus: CPUs of a trial.

    Raises:
        FailedError: no such node started within half an hour.
    """
    needs_gpu = _can_start_gpus()
    if _is_ready(cpus, needs_gpu):
        return
    # Without the cluster's YAML, it is unknown whether the cluster can start GPUs, so ask for both.
    bundles = [{"GPU": 1, "CPU": cpus}] if needs_gpu else [{"GPU": 1, "CPU": cpus}, {"CPU": cpus}]
    what = "a GPU" if needs_gpu else f"a machine with {cpus} CPU{'s' if cpus > 1 else ''}"
    # `request_resources` would outlive a killed driver, and the machines would cost money.
    groups = [placement_group([bundle]) for bundle in bundles]
    started, reminders = time.monotonic(), 0
    try:
        while not _is_ready(cpus, needs_gpu):
            waited = time.monotonic() - started
            if waited > _START_TIMEOUT:
                raise FailedError(
                    f"{what} did not start within {_START_TIMEOUT / 60:.0f} minutes: see "
                    f"`ray status` on the head{CONTINUE_HINT}"
                )
            if waited >= reminders * _REMINDER_SECONDS:
                reminders += 1
                minutes, seconds = divmod(int(waited), 60)
                console.print(
                    f"waiting for {what}: the cluster starts machines, "
                    f"which takes minutes ({minutes}:{seconds:02d} so far)",
                    soft_wrap=True,
                )
            time.sleep(_POLL_SECONDS)
    finally:
        for group in groups:
            remove_placement_group(group)


def _is_ready(cpus: int, needs_gpu: bool) -> bool:
    nodes = trial_nodes(alive_nodes(), cpus)
    return any(node["Resources"].get("GPU") or not needs_gpu for node in nodes)


def _can_start_gpus() -> bool:
    """Whether the autoscaler can start machines with GPUs. Ray has no API for this."""
    try:
        config: Any = read_yaml(_BOOTSTRAP.expanduser())
        types = config["available_node_types"].values()
        return any(
            node_type.get("resources", {}).get("GPU") and node_type.get("max_workers", 1)
            for node_type in types
        )
    except (InputError, KeyError, TypeError, AttributeError):
        return False
