"""Provenance of results: the code and the machine."""

import os
import platform
import re
import subprocess
from functools import cache
from pathlib import Path

import torch

_CODE = (":/memmeta", ":/sweeps")
"""The code that determines a trial's numbers. Cluster nodes lack tests and docs, which would count
as deleted."""


@cache
def commit() -> str:
    """The git commit of this code at the first call, or "unknown" outside git.

    Ends in "-dirty" if tracked files of the learner or the search differ from the commit.
    """
    try:
        # In an environment, the code may be inside another project's repository.
        _git("ls-files", "--error-unmatch", __file__)
        dirty = _git("status", "--porcelain", "--untracked-files=no", "--", *_CODE)
        return _git("rev-parse", "HEAD") + ("-dirty" if dirty else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    here = Path(__file__).resolve().parent
    # Many workers ask at once, and none should write to the repository.
    command = ["git", "--no-optional-locks", *arguments]
    done = subprocess.run(command, cwd=here, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def hardware(device: torch.device) -> str:
    """One line with the device, the PyTorch version and, for a CPU, its model and threads."""
    if device.type == "cuda":  # only on CUDA
        name = torch.cuda.get_device_name(device)
    else:
        kind = f"{_cpu_model()} ({torch.backends.cpu.get_cpu_capability()})"
        name = f"{kind}, {torch.get_num_threads()} of {os.cpu_count()} cores"
    return f"{name}, torch {torch.__version__}"


def expected_difference(stated: str, device: torch.device) -> str | None:
    """Explain why this process may give other last digits than an earlier one.

    PyTorch chooses kernels by the processor, and the order of sums depends on the number of
    threads. With the same processor model, threads and PyTorch version, numbers are equal to the
    last bit.

    Args:
        stated: the result of `hardware` in the earlier process. Older versions left out the
            processor's instruction sets.
        device: the device of this process.

    Returns:
        The hardware then and now, or None if the numbers should be equal.
    """
    now = hardware(device)
    if _parts(stated, now) == _parts(now, stated):
        return None
    return f"{stated} then, {now} now"


def _parts(one: str, other: str) -> tuple[str, ...]:
    """The parts of `one` that determine numbers, without details that `other` lacks."""
    sets = r" \([A-Z0-9 ]+\)(?=, \d+ of \d+ cores)"
    if not re.search(sets, other):
        one = re.sub(sets, "", one)
    # The number of threads matters, the number of cores does not.
    return tuple(re.sub(r" of \d+ cores", "", one).split(", "))


@cache
def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())
