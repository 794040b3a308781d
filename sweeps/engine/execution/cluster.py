"""The connection to a Ray cluster."""

import atexit
import ctypes
import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from types import ModuleType

import ray
from ray._private.services import canonicalize_bootstrap_address

from memmeta.errors import FailedError, InputError
from memmeta.system.runtime import ALLOCATOR_ENVIRONMENT
from memmeta.system.stopping import STOP, heed_signals, postponed
from sweeps.engine.stores.masking import reason

_NEUTRAL = Path("/")
"""A folder without packages. Ray makes its workers search the driver's working directory first, so
the driver connects from here: the working directory may have a folder called `sweeps`. Each node
imports its own code, which `preflight` compares with the driver's."""

_START_SECONDS = 25
"""Time for Ray to start after a signal. Job schedulers kill processes after thirty seconds."""

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
