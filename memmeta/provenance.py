"""Where a number comes from: which code and which machine."""

import os
import platform
import subprocess
from functools import cache
from pathlib import Path

import torch


@cache
def commit() -> str:
    """The git commit of this code, as it was when first asked for; "unknown" outside git.

    It ends in "-dirty" if tracked files differ from it.
    """
    here = Path(__file__).resolve().parent
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        # Installed into an environment, the code may lie inside somebody else's repository.
        subprocess.run(
            ["git", "ls-files", "--error-unmatch", __file__],
            cwd=here,
            check=True,
            capture_output=True,
        )
        done = subprocess.run(describe, cwd=here, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def hardware(device: torch.device) -> str:
    """The device, the PyTorch version and, on the CPU, its threads, in one line."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{_cpu_model()}, {torch.get_num_threads()} of {os.cpu_count()} cores"
    return f"{name}, torch {torch.__version__}"


@cache
def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())
