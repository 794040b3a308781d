"""How long a task takes, measured on a few and remembered."""

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
from memmeta.system import files, provenance
from memmeta.training import DivergedError, MetaTrainer

_WARM_UP = 3
"""Steps that are slowed by the first use of operators and by watching memory."""

_STEPS = 5
_TASKS = 8
_PATIENCE = 5.0
"""Seconds after which no further step is timed."""


class Timing(NamedTuple):
    """Seconds of a trial's device that a task takes."""

    training: float
    validation: float
    at: float
    """When it was measured, in seconds of Unix time."""


def timing(run: RunConfig, dataset: Dataset, device: torch.device, memory: Path) -> Timing | None:
    """The least that a task of `run` took in a few steps; None if it diverges in these.

    On the CPU it is the time of the processor, which other processes at work do not change much.

    Args:
        run: what is timed.
        dataset: its data.
        device: where; with as many threads as this process has set.
        memory: a file that remembers. Nothing is remembered where it cannot be written.
    """
    known = _remembered(memory)
    key = _key(run, dataset, device)
    if key not in known:
        try:
            known[key] = _measure(MetaTrainer(run, dataset, device))
        except DivergedError:
            known[key] = None
        with suppress(OSError), files.whole(memory) as file:
            file.write(json.dumps(known).encode())
    value = known[key]
    return None if value is None else Timing(*value)


def _measure(trainer: MetaTrainer) -> Timing:
    begun = time.monotonic()
    for _ in range(_WARM_UP):
        trainer.step()
    steps = []
    while len(steps) < _STEPS and (not steps or time.monotonic() < begun + _PATIENCE):
        steps.append(_seconds(trainer.step, trainer.device))
    validation = _seconds(lambda: trainer.evaluate("val", _TASKS), trainer.device)
    tasks = trainer.config.learner.task_batch
    return Timing(min(steps) / tasks, validation / _TASKS, time.time())


def _seconds(act: Callable[[], object], device: torch.device) -> float:
    if device.type != "cpu":
        begun = time.perf_counter()
        act()  # it waits for the device, of which it returns numbers
        return time.perf_counter() - begun
    begun = time.process_time()
    act()
    return (time.process_time() - begun) / torch.get_num_threads()


def _key(run: RunConfig, dataset: Dataset, device: torch.device) -> str:
    """What decides how long a task takes: the run but for its budget, the machine, the code."""
    parts = (
        run.model_dump_json(exclude={"training"}),
        dataset.digest,
        provenance.hardware(device),
        provenance.commit(),
    )
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _remembered(memory: Path) -> dict[str, Timing | None]:
    # Whatever else it holds, it is measured anew.
    with suppress(OSError, ValueError):
        known = json.loads(memory.read_text(encoding="utf-8"))
        if isinstance(known, dict):
            return known
    return {}
