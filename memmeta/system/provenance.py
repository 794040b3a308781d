"""Where a number comes from: which code and which machine."""

import os
import platform
import re
import subprocess
from functools import cache
from pathlib import Path

import torch

_CODE = (":/memmeta", ":/sweeps")
"""What decides a trial's numbers. Nodes of a cluster have no tests or documents, which would count
as deleted."""


@cache
def commit() -> str:
    """The git commit of this code, as it was when first asked for; "unknown" outside git.

    It ends in "-dirty" if tracked files of the learner or the search differ from it.
    """
    try:
        # Installed into an environment, the code may lie inside somebody else's repository.
        _git("ls-files", "--error-unmatch", __file__)
        dirty = _git("status", "--porcelain", "--untracked-files=no", "--", *_CODE)
        return _git("rev-parse", "HEAD") + ("-dirty" if dirty else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    here = Path(__file__).resolve().parent
    # Many workers ask at once, and none is to write to the repository.
    command = ["git", "--no-optional-locks", *arguments]
    done = subprocess.run(command, cwd=here, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def hardware(device: torch.device) -> str:
    """The device, the PyTorch version and, on the CPU, its kind and its threads, in one line."""
    if device.type == "cuda":  # only on CUDA
        name = torch.cuda.get_device_name(device)
    else:
        kind = f"{_cpu_model()} ({torch.backends.cpu.get_cpu_capability()})"
        name = f"{kind}, {torch.get_num_threads()} of {os.cpu_count()} cores"
    return f"{name}, torch {torch.__version__}"


def expected_difference(stated: str, device: torch.device) -> str | None:
    """Why numbers of this process may differ in their last digits from stated ones.

    Kernels are chosen by the kind of processor and sum in an order that depends on the number of
    threads: on one kind with as many threads and the same PyTorch, numbers are equal to the last
    bit.

    Args:
        stated: what `hardware` said where they come from, with or without the processor's
            instruction sets, which older versions left out.
        device: of this process.

    Returns:
        What differs, then and now; None where they should be equal.
    """
    now = hardware(device)
    if _parts(stated, now) == _parts(now, stated):
        return None
    return f"{stated} then, {now} now"


def _parts(one: str, other: str) -> tuple[str, ...]:
    """What decides the numbers, as far as both say it."""
    sets = r" \([A-Z0-9 ]+\)(?=, \d+ of \d+ cores)"
    if not re.search(sets, other):
        one = re.sub(sets, "", one)
    # Of the cores only those count that worked.
    return tuple(re.sub(r" of \d+ cores", "", one).split(", "))


@cache
def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())
