"""Set-up of a training process: threads, allocator, determinism."""

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_THRESHOLD, _TOP_PAD = 2**30, 2**26

_CUBLAS_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"

_ONE_THREAD = threading.RLock()

ALLOCATOR_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": str(_THRESHOLD),
    "MALLOC_TRIM_THRESHOLD_": str(_THRESHOLD),
    "MALLOC_TOP_PAD_": str(_TOP_PAD),
}
"""The allocator settings of `configure_process` as environment variables, for processes that have
not started yet."""


def configure_process(threads: int | None = None) -> int:
    """Set up this process for training.

    Args:
        threads: CPU threads of PyTorch; by default PyTorch decides, usually one per core.

    Returns:
        The number of CPU threads.
    """
    if threads:
        torch.set_num_threads(threads)
    _choose_deterministic_algorithms()
    _keep_freed_memory()
    return torch.get_num_threads()


@contextmanager
def deterministic() -> Iterator[None]:
    """Let PyTorch choose deterministic algorithms during a block, as after `configure_process`.

    This is a setting of the process, like PyTorch's random generator. So one thread at a time can
    be in such a block, and others wait. The block also has the `usual_modes`.
    """
    with _ONE_THREAD, usual_modes():
        yield from _deterministic()


@contextmanager
def usual_modes() -> Iterator[None]:
    """Turn off the caller's modes of PyTorch that would change numbers in the block.

    These are `torch.autocast`, `torch.no_grad`, `torch.inference_mode`, and another default dtype
    or device.
    """
    dtype = torch.get_default_dtype()
    with ExitStack() as modes:
        modes.enter_context(torch.inference_mode(False))
        modes.enter_context(torch.enable_grad())
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                modes.enter_context(torch.autocast(device, enabled=False))
        # A default device slows down every operator.
        if torch.get_default_device().type != "cpu":
            modes.enter_context(torch.device("cpu"))
        modes.callback(torch.set_default_dtype, dtype)
        torch.set_default_dtype(torch.float32)
        yield


def _deterministic() -> Iterator[None]:
    algorithms = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    benchmark = torch.backends.cudnn.benchmark
    workspace = os.environ.get(_CUBLAS_WORKSPACE)
    _choose_deterministic_algorithms()
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(algorithms, warn_only=warn_only)
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = benchmark
        if workspace is None:
            os.environ.pop(_CUBLAS_WORKSPACE, None)


def _choose_deterministic_algorithms() -> None:
    # cuBLAS reads this at its first call. Without it, results vary from run to run.
    os.environ.setdefault(_CUBLAS_WORKSPACE, ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Filling every new tensor with NaN would take a sixth of the time of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False


def _keep_freed_memory() -> None:
    """Let glibc keep freed blocks for the next step.

    By default glibc returns big blocks to the system at once, and every step pays for zeroed pages
    again.
    """
    if sys.platform == "linux":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _THRESHOLD)
        mallopt(_M_TRIM_THRESHOLD, _THRESHOLD)
        mallopt(_M_TOP_PAD, _TOP_PAD)
