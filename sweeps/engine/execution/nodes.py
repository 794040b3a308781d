"""The nodes of a Ray cluster, and waiting for machines that start on demand."""

import time
from pathlib import Path
from typing import Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from rich.console import Console

from memmeta.errors import FailedError, InputError
from memmeta.system.plain_yaml import read_yaml
from sweeps.engine.execution.cluster import CONTINUE_HINT

Node = dict[str, Any]
"""A node as described by `ray.nodes`."""

_BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")
"""Where `ray up` puts the cluster's YAML on the head, for the autoscaler."""

_START_TIMEOUT = 30 * 60.0
"""Maximum time to wait for a machine, in seconds. A GPU usually starts within minutes."""

_REMINDER_SECONDS = 60.0
"""Interval between messages while the sweep waits for machines."""

_POLL_SECONDS = 1.0
"""Interval between two looks at the cluster."""


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
