"""Time per task, measured in a few steps and cached in a file."""

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch

from memmeta.config import RunConfig
from memmeta.data.dataset import Dataset
from memmeta.errors import DivergedError
from memmeta.system import files, provenance
from memmeta.training import MetaTrainer

_WARM_UP = 3
"""Number of steps before the measurement. The first use of operators makes them slow."""

_STEPS = 5
"""Number of timed steps."""

_TASKS = 8
"""Number of timed validation tasks."""

_TIME_LIMIT = 5.0
"""Seconds after which no further step is timed."""


class Timing(NamedTuple):
    """Time per task in seconds."""

    training: float
    validation: float
    measured_at: float
    """Unix time of the measurement."""


def timing(run: RunConfig, dataset: Dataset, device: torch.device, cache: Path) -> Timing | None:
    """The minimum time per task over a few steps; None if the run diverges in these steps.

    On the CPU, this is processor time, which other processes hardly change.

    Args:
        run: the run to measure.
        dataset: its data set.
        device: the device to measure on. The number of threads is that of this process.
        cache: JSON file with earlier results. It is not updated if it cannot be written.
    """
    cached = _read_cache(cache)
    key = _key(run, dataset, device)
    if key not in cached:
        try:
            cached[key] = _measure(MetaTrainer(run, dataset, device))
        except DivergedError:
            cached[key] = None
        with suppress(OSError), files.atomic_write(cache) as file:
            file.write(json.dumps(cached).encode())
    value = cached[key]
    return None if value is None else Timing(*value)


def _measure(trainer: MetaTrainer) -> Timing:
    started = time.monotonic()
    for _ in range(_WARM_UP):
        trainer.step()
    steps: list[float] = []
    while len(steps) < _STEPS and (not steps or time.monotonic() < started + _TIME_LIMIT):
        steps.append(_seconds(trainer.step, trainer.device))
    validation = _seconds(lambda: trainer.evaluate("val", _TASKS), trainer.device)
    tasks = trainer.config.learner.task_batch
    return Timing(min(steps) / tasks, validation / _TASKS, time.time())


def _seconds(action: Callable[[], object], device: torch.device) -> float:
    if device.type != "cpu":
        started = time.perf_counter()
        action()  # returns numbers, so it waits for the device
        return time.perf_counter() - started
    started = time.process_time()
    action()
    return (time.process_time() - started) / torch.get_num_threads()


def _key(run: RunConfig, dataset: Dataset, device: torch.device) -> str:
    """Hash of what affects the time: the run without its budget, the machine and the code."""
    parts = (
        run.model_dump_json(exclude={"training"}),
        dataset.digest,
        provenance.hardware(device),
        provenance.commit(),
    )
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _read_cache(cache: Path) -> dict[str, Timing | None]:
    # A file that is missing or damaged counts as empty.
    with suppress(OSError, ValueError):
        cached = json.loads(cache.read_text(encoding="utf-8"))
        if isinstance(cached, dict):
            return cached
    return {}
