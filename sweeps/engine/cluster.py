"""The Ray cluster: found, connected to, and waited for where its machines start on demand."""

import gc
import logging
import os
import socket
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
from memmeta.plain_yaml import read_yaml
from memmeta.runtime import ALLOCATOR_ENVIRONMENT
from sweeps.engine.store import reason

Node = dict[str, Any]
"""As `ray.nodes` has it."""

_BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")
"""Where `ray up` leaves the cluster's YAML on the head, for the autoscaler there."""

_PATIENCE = 30 * 60.0
"""Seconds after which no machine is expected any more: a GPU takes a few minutes to come."""

_REMINDER = 60.0
"""Seconds from one line that says what is waited for to the next."""

_ANSWER = 10.0
"""Seconds within which a cluster's head accepts a connection."""

_POLL = 1.0
"""Seconds between two looks at the cluster."""


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
        click.ClickException: the cluster does not answer, or does not take this process.
    """
    try:
        if address:
            _knock(address)
        ray.init(
            address=address or "local",
            log_to_driver=False,
            logging_level=logging.ERROR,
            include_dashboard=False,
            runtime_env={"env_vars": ALLOCATOR_ENVIRONMENT},
        )
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        if not address:
            raise
        raise click.ClickException(f"{address}: no Ray cluster to use ({reason(error)})") from None
    try:
        yield
    finally:
        # Tune leaves references to Ray's objects in cycles, and any thread that allocates may come
        # to collect them. Were it another one while Ray shuts down, Ray would end the process.
        gc.disable()
        gc.collect()
        ray.shutdown()
        gc.enable()


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
