"""Resources of a trial: CPUs, and the memory that it is predicted to need."""

import math
import os
from typing import NamedTuple

import ray
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from memmeta.config import RunConfig
from memmeta.errors import InputError
from memmeta.memory import limits
from memmeta.memory.prediction import predict_trial_memory
from memmeta.system.units import mib
from sweeps.engine.execution.nodes import Node, alive_nodes, trial_nodes
from sweeps.engine.ledger.entry import Slot
from sweeps.engine.study.result import TrialResult

_SHARES = 20
"""Shares are rounded up to twentieths of a device. Tune runs a trial in the process of an earlier
one only if both have the same resources, so there should be few different shares."""

_RAM_STEP = 2**28
"""RAM of a GPU worker is reserved in steps of 256 MiB, for the same reason."""

_ACCELERATOR = "accelerator_type:"
"""Prefix of Ray's resource for a type of GPU."""


class Device(NamedTuple):
    """A type of device that trials run on."""

    accelerator: str | None
    """Ray's accelerator type of a GPU; None: no GPU, or one of unknown type."""
    gpu: bool
    units: float
    """Number of GPUs of this type; 1 for RAM."""
    memory: int
    """Memory of one GPU in bytes, or the RAM that Ray offers on the largest node."""
    least_share: float
    """Minimum share of a trial. With smaller shares, CPUs would run out before memory."""
    overhead: int
    """Device memory that a process uses besides tensors, in bytes."""
    host_overhead: int
    """RAM that a process uses besides tensors, in bytes."""


class Allocation(NamedTuple):
    """The resources of a trial."""

    resources: dict[str, float]
    """Ray resources."""
    predicted: int
    """Predicted peak memory of a training step, in bytes."""
    reserved: int
    """Device memory that the trial's process may use, including the overhead, in bytes."""
    overhead: int
    """The part of `reserved` that is not for tensors."""


class Refusal(NamedTuple):
    """A trial that does not fit on any device."""

    result: TrialResult


class Placement:
    """Allocates devices to trials by predicted peak memory."""

    def __init__(self, devices: list[Device], cpus: int, budget: int | None) -> None:
        """Manage `devices`.

        Args:
            devices: the types of devices in the cluster.
            cpus: CPUs of a trial, which is also its number of threads.
            budget: maximum memory of a trial in bytes; None: the memory of a device.
        """
        self._devices = devices
        self._cpus = cpus
        self._budget = budget
        self._allocated: dict[Slot, tuple[int, float]] = {}  # index of the device, and share

    @property
    def concurrency(self) -> int | None:
        """How many trials run at once; None if it depends on their memory."""
        if self._devices[0].gpu:
            return None
        return max(1, int(ray.cluster_resources().get("CPU", 1) // self._cpus))

    def allocate(self, run: RunConfig, slot: Slot) -> Allocation | Refusal:
        """Allocate a share of the device with the lowest load, until `free` is called.

        Args:
            run: the trial's run.
            slot: identifies the trial.
        """
        predicted = predict_trial_memory(run)
        sizes = [reservation(predicted.whole, device) for device in self._devices]
        fitting = [
            index
            for index, (device, size) in enumerate(zip(self._devices, sizes, strict=True))
            if size <= self._limit(device)
        ]
        if not fitting:
            return _refusal(predicted.step, min(sizes), max(map(self._limit, self._devices)))
        shares = {index: share_for(sizes[index], self._devices[index]) for index in fitting}
        best = min(fitting, key=lambda index: self._load(index, shares[index]))
        device, share = self._devices[best], shares[best]
        self._allocated[slot] = best, share
        reserved = min(int(share * device.memory), self._limit(device))
        return Allocation(self._resources(device, share), predicted.step, reserved, device.overhead)

    def fits(self, run: RunConfig) -> bool:
        """Whether a run fits on any device."""
        whole = predict_trial_memory(run).whole
        return any(reservation(whole, device) <= self._limit(device) for device in self._devices)

    def free(self, slot: Slot) -> None:
        """Free the share of a trial that has ended."""
        self._allocated.pop(slot, None)

    def _limit(self, device: Device) -> int:
        """Maximum memory of a trial on a device, in bytes."""
        return min(device.memory, self._budget or device.memory)

    def _load(self, index: int, share: float) -> float:
        """The load of a device if it got another trial with this share."""
        # Copied, since another thread may free shares meanwhile.
        taken = sum(other for device, other in list(self._allocated.values()) if device == index)
        return (taken + share) / self._devices[index].units

    def _resources(self, device: Device, share: float) -> dict[str, float]:
        if not device.gpu:
            return {"CPU": self._cpus, "memory": int(share * device.memory)}
        host = math.ceil(device.host_overhead / _RAM_STEP) * _RAM_STEP
        resources: dict[str, float] = {"CPU": self._cpus, "GPU": share, "memory": host}
        if len(self._devices) > 1 and device.accelerator:
            resources[f"{_ACCELERATOR}{device.accelerator}"] = 0.001
        return resources


def find_devices(cpus: int) -> list[Device]:
    """The types of GPUs in the cluster, or RAM if it has none.

    One node of each type is asked for the details.

    Args:
        cpus: CPUs of a trial.

    Raises:
        InputError: PyTorch cannot use the GPUs of a node.
    """
    nodes = trial_nodes(alive_nodes(), cpus)
    if not any(node["Resources"].get("GPU") for node in nodes):
        return [_ram(nodes, cpus)]
    groups: dict[str | None, list[Node]] = {}
    for node in nodes:
        groups.setdefault(_accelerator(node), []).append(node)
    devices = []
    for accelerator, group in groups.items():
        device = _ask_node(group[0])
        if not device.gpu:
            where = group[0]["NodeManagerAddress"]
            raise InputError(f"node {where}: Ray has GPUs there that PyTorch cannot use")
        units = sum(node["Resources"]["GPU"] for node in group)
        devices.append(device._replace(accelerator=accelerator, units=units))
    return devices


def _ram(nodes: list[Node], cpus: int) -> Device:
    resources = [node["Resources"] for node in nodes]
    memory = max((r.get("memory", 0) for r in resources), default=0)
    # RAM of a trial if all CPUs of its node run trials. Less would leave RAM unused.
    even = min((r.get("memory", 0) / (r["CPU"] // cpus) for r in resources), default=0)
    # An upper bound: a worker uses less than this process, which has imported more.
    overhead = limits.process_overhead(torch.device("cpu"))
    return Device(None, False, 1, int(memory), even / max(memory, 1), overhead, overhead)


def this_device() -> Device:
    """The device that this process would train on."""
    host_overhead = limits.process_overhead(torch.device("cpu"))
    if torch.cuda.is_available():  # only on CUDA
        memory = torch.cuda.get_device_properties(0).total_memory
        overhead = limits.process_overhead(torch.device("cuda"))
        return Device(None, True, torch.cuda.device_count(), memory, 0, overhead, host_overhead)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Device(None, False, 1, memory, 0, host_overhead, host_overhead)


def _ask_node(node: Node) -> Device:
    """Run `this_device` on a node."""
    on_node = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    gpu = 0.01 if node["Resources"].get("GPU") else 0
    task = ray.remote(this_device).options(num_cpus=0, num_gpus=gpu, scheduling_strategy=on_node)
    device: Device = ray.get(task.remote())
    return device


def _accelerator(node: Node) -> str | None:
    names = (name for name in node["Resources"] if name.startswith(_ACCELERATOR))
    return next((name.removeprefix(_ACCELERATOR) for name in names), None)


def reservation(predicted: int, device: Device) -> int:
    """Device memory to reserve for a trial with this predicted peak, in bytes."""
    torch_device = torch.device("cuda" if device.gpu else "cpu")
    return limits.reservation(torch_device, predicted, device.overhead)


def share_for(size: int, device: Device) -> float:
    """The share of a device that holds `size` bytes, rounded up."""
    return max(device.least_share, math.ceil(size / device.memory * _SHARES) / _SHARES)


def _refusal(predicted: int, size: int, most: int) -> Refusal:
    message = (
        f"not started: needs {mib(size)} (predicted peak {mib(predicted)}, "
        f"headroom and the process itself), but only {mib(most)} are available"
    )
    return Refusal(
        {
            "status": "out_of_memory",
            "message": message,
            "step": 0,
            "metrics": {},
            "reports": [],
            "peak_memory_bytes": None,
            "predicted_memory_bytes": predicted,
            "reserved_memory_bytes": size,
            "seconds_per_step": None,
            "seconds": 0.0,
        }
    )
