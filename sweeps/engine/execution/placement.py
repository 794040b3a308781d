"""What a trial gets of the cluster: CPUs, and the memory that it is predicted to need."""

import math
import os
from typing import Any, NamedTuple

import ray
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from memmeta.config import RunConfig
from memmeta.errors import InputError
from memmeta.memory import limits
from memmeta.memory.prediction import predict_trial_memory
from sweeps.engine.execution.cluster import Node, alive_nodes, trial_nodes
from sweeps.engine.study.outcome import Stage

_PARTS = 20
"""Shares are rounded up to twentieths of a device: few kinds of share, so that a trial can be run
by the worker of one that ended."""

_RAM_STEP = 2**28
"""RAM of a GPU's process is reserved in steps of 256 MiB, for the same reason."""


class Device(NamedTuple):
    """One kind of device that trials run on."""

    kind: str | None
    """Ray's accelerator type of a GPU; None: the nodes have no GPUs, or GPUs of no known type."""
    gpu: bool
    count: float
    """GPUs of this kind; on the CPU 1."""
    memory: int
    """Bytes of one GPU; of RAM, what Ray gives out on the largest node."""
    even: float
    """The least share that is worth giving: with less, something else runs out first."""
    overhead: int
    """Bytes that a process takes of it besides its tensors."""
    host_overhead: int
    """Bytes of RAM that a process takes besides its tensors."""


class Placed(NamedTuple):
    """Where a trial may run, and within what."""

    resources: dict[str, float]
    """As Ray takes them."""
    predicted: int
    """Bytes of the peak of a training step."""
    reserved: int
    """Bytes that the trial's process may take of its device, with its overhead."""
    overhead: int
    """Those of them that are not for tensors."""


class Refusal(NamedTuple):
    """A trial that cannot run: its result."""

    result: dict[str, Any]


class Placement:
    """Gives each trial its share: by its predicted peak, on the kind of device with most room."""

    def __init__(self, devices: list[Device], cpus: int, budget: int | None) -> None:
        """Share out `devices`.

        Args:
            devices: what there is.
            cpus: CPUs, and so threads, of a trial.
            budget: bytes that no trial may exceed, if that is less than a device has.
        """
        self._devices = devices
        self._cpus = cpus
        self._budget = budget
        self._taken: dict[tuple[Stage, int], tuple[int, float]] = {}

    @property
    def slots(self) -> int | None:
        """Trials that run at once; None where their sizes decide."""
        if self._devices[0].gpu:
            return None
        return max(1, int(ray.cluster_resources().get("CPU", 1) // self._cpus))

    def place(self, run: RunConfig, place: tuple[Stage, int]) -> Placed | Refusal:
        """The share of a run, or why it gets none. It counts as taken until `free`."""
        predicted = predict_trial_memory(run)
        sizes = [reservation(predicted.whole, device) for device in self._devices]
        fitting = [
            index
            for index, (device, size) in enumerate(zip(self._devices, sizes, strict=True))
            if size <= self._limit(device)
        ]
        if not fitting:
            return _refusal(predicted.step, min(sizes), max(map(self._limit, self._devices)))
        parts = {index: share(sizes[index], self._devices[index]) for index in fitting}
        best = min(fitting, key=lambda index: self._load(index, parts[index]))
        device, part = self._devices[best], parts[best]
        self._taken[place] = best, part
        reserved = min(int(part * device.memory), self._limit(device))
        return Placed(self._resources(device, part), predicted.step, reserved, device.overhead)

    def fits(self, run: RunConfig) -> bool:
        """Whether the run would get a share."""
        whole = predict_trial_memory(run).whole
        return any(reservation(whole, device) <= self._limit(device) for device in self._devices)

    def free(self, place: tuple[Stage, int]) -> None:
        """The trial has ended."""
        self._taken.pop(place, None)

    def _limit(self, device: Device) -> int:
        """Bytes that a trial may have of it."""
        return min(device.memory, self._budget or device.memory)

    def _load(self, index: int, part: float) -> float:
        taken = sum(other for at, other in list(self._taken.values()) if at == index)
        return (taken + part) / self._devices[index].count

    def _resources(self, device: Device, part: float) -> dict[str, float]:
        if not device.gpu:
            return {"CPU": self._cpus, "memory": int(part * device.memory)}
        host = math.ceil(device.host_overhead / _RAM_STEP) * _RAM_STEP
        resources: dict[str, float] = {"CPU": self._cpus, "GPU": part, "memory": host}
        if len(self._devices) > 1 and device.kind:
            resources[f"{_ACCELERATOR}{device.kind}"] = 0.001
        return resources


_ACCELERATOR = "accelerator_type:"


def find_devices(cpus: int) -> list[Device]:
    """What the cluster has: its kinds of GPU, of which it asks a node each, or else RAM.

    Args:
        cpus: of a trial.

    Raises:
        InputError: PyTorch cannot use the GPUs of a node.
    """
    nodes = trial_nodes(alive_nodes(), cpus)
    if not any(node["Resources"].get("GPU") for node in nodes):
        return [_ram(nodes, cpus)]
    kinds: dict[str | None, list[Node]] = {}
    for node in nodes:
        kinds.setdefault(_kind(node), []).append(node)
    devices = []
    for kind, of_kind in kinds.items():
        device = _asked(of_kind[0])
        if not device.gpu:
            where = of_kind[0]["NodeManagerAddress"]
            raise InputError(f"node {where}: Ray has GPUs there that PyTorch cannot use")
        count = sum(node["Resources"]["GPU"] for node in of_kind)
        devices.append(device._replace(kind=kind, count=count))
    return devices


def _ram(nodes: list[Node], cpus: int) -> Device:
    # As much as a trial can have where all CPUs of a node run trials: less would serve nobody.
    resources = [node["Resources"] for node in nodes]
    memory = max((r.get("memory", 0) for r in resources), default=0)
    even = min((r.get("memory", 0) / (r["CPU"] // cpus) for r in resources), default=0)
    # A worker holds less than this process, which has imported more.
    overhead = limits.process_overhead(torch.device("cpu"))
    return Device(None, False, 1, int(memory), even / max(memory, 1), overhead, overhead)


def this_device() -> Device:
    """What this process would train on."""
    host_overhead = limits.process_overhead(torch.device("cpu"))
    if torch.cuda.is_available():  # only on CUDA
        memory = torch.cuda.get_device_properties(0).total_memory
        overhead = limits.process_overhead(torch.device("cuda"))
        return Device(None, True, torch.cuda.device_count(), memory, 0, overhead, host_overhead)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Device(None, False, 1, memory, 0, host_overhead, host_overhead)


def _asked(node: Node) -> Device:
    on_node = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    gpu = 0.01 if node["Resources"].get("GPU") else 0
    task = ray.remote(this_device).options(num_cpus=0, num_gpus=gpu, scheduling_strategy=on_node)
    device: Device = ray.get(task.remote())
    return device


def _kind(node: Node) -> str | None:
    names = (name for name in node["Resources"] if name.startswith(_ACCELERATOR))
    return next((name.removeprefix(_ACCELERATOR) for name in names), None)


def reservation(predicted: int, device: Device) -> int:
    """Bytes of the device for a trial that is predicted to hold so many."""
    on = torch.device("cuda" if device.gpu else "cpu")
    return limits.reservation(on, predicted, device.overhead)


def share(size: int, device: Device) -> float:
    """The part of a device that has room for `size` bytes, rounded up."""
    return max(device.even, math.ceil(size / device.memory * _PARTS) / _PARTS)


def _refusal(predicted: int, size: int, most: int) -> Refusal:
    message = (
        f"not started: needs {size / 2**20:.0f} MiB (predicted peak {predicted / 2**20:.0f} MiB, "
        f"headroom and the process itself), and there are {most / 2**20:.0f}"
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
