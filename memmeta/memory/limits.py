"""Memory limits of trials: how much memory to reserve, and a cap that enforces the reservation."""

import ctypes
import math
import sys
from pathlib import Path

import torch
from torch import nn

from memmeta.system.units import MIB

# A process needs more memory than its live tensors: the heap is fragmented, and oneDNN's kernels
# allocate their buffers directly. The CPU values cover 35 configs, measured in fresh processes on
# two x86 cores (Conv4, and two with ResNet-12; 16 to 64 filters, 28 to 84 pixels, 1 to 16 tasks,
# memory_reduced, anil and maml, all norms, with and without chunks). The growth of the resident set
# was 1.04 to 1.33 times the prediction at 28 and 32 pixels, 1.26 to 1.47 times for training steps
# at 84 pixels, and 1.6 to 1.98 times if the peak was a validation with large images. For
# predictions below 150 MiB it was up to 61 MiB above the prediction.
_FACTOR = {"cpu": 2.0, "cuda": 1.25}
_CONSTANT = {"cpu": 64 * MIB, "cuda": 256 * MIB}
# The CUDA values are estimates that no run has confirmed yet. They cover the block sizes of
# PyTorch's allocator and the workspaces of cuBLAS and cuDNN, which it also allocates.

# Upper bound of the size of a CUDA context with the libraries' kernels on any card. Memory in use
# beyond it belongs to other processes.
_MAX_CONTEXT = 1024 * MIB

# Process data besides tensors: the heap's growth beyond a request (64 MiB, see
# `memmeta.system.runtime`), for each thread of PyTorch an arena of the same size and a stack of
# 8 MiB, and a dozen threads that Ray may add.
_SLACK = 256 * MIB
_THREAD_SLACK = 72 * MIB


def process_overhead(device: torch.device) -> int:
    """Memory in bytes that a training process uses on `device` besides live tensors.

    Measured after a tiny training step. On the CPU it is the resident set of this process,
    including Python and libraries. On CUDA it is the context with the handles and kernels of the
    libraries, measured as all memory in use except that of PyTorch's allocator in this process, up
    to 1 GiB. This is exact if no other process uses the device; otherwise the excess is below
    1 GiB.
    """
    _tiny_step(device)
    if device.type == "cuda":  # only on CUDA
        free, total = torch.cuda.mem_get_info(device)
        return min(total - free - torch.cuda.memory_reserved(device), _MAX_CONTEXT)
    return _resident()


def reservation(device: torch.device, predicted: int, overhead: int) -> int:
    """Memory in bytes to reserve for a trial: an upper bound for its process, in whole MiB.

    Args:
        device: where the trial runs.
        predicted: `TrialMemory.whole` of `memmeta.memory.prediction.predict_trial_memory`.
        overhead: result of `process_overhead`.

    Examples:
        >>> import torch
        >>> from memmeta.memory.limits import reservation
        >>> reservation(torch.device("cpu"), predicted=100 * 2**20, overhead=300 * 2**20) / 2**20
        564.0
    """
    tensors = _FACTOR[device.type] * predicted + _CONSTANT[device.type]
    return math.ceil((tensors + overhead) / MIB) * MIB


def cap(device: torch.device, reserved: int, overhead: int) -> None:
    """Limit this process to `reserved` bytes on the device.

    An allocation beyond the limit raises an error that `is_out_of_memory` recognises. Call this
    after `memmeta.system.runtime.configure_process`, and again before each further trial, once the
    tensors of the last trial are released. On CPUs it sets RLIMIT_DATA, with slack for data other
    than tensors and for the heap that the last trial left. It has no effect on CPUs
    outside Linux.

    Args:
        device: where the trial runs.
        reserved: result of `reservation`.
        overhead: the overhead given to `reservation`.
    """
    room = reserved - overhead
    if device.type == "cuda":  # only on CUDA
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, room / total), device)
    elif sys.platform == "linux":
        _cap_data(room)


def _cap_data(room: int) -> None:
    # Not available on Windows.
    import resource

    # Return free memory at the end of the heap, left by the last trial, to the system.
    ctypes.CDLL(None).malloc_trim(0)
    limit = _status("VmData") + room + _SLACK + torch.get_num_threads() * _THREAD_SLACK
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    soft = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` is an out-of-memory error of any allocator or library."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _REFUSALS)


_REFUSALS = (
    "can't allocate memory",  # PyTorch's CPU allocator
    "std::bad_alloc",
    "could not create a primitive",  # oneDNN, without memory for the code it generates
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def _tiny_step(device: torch.device) -> None:
    """Run a training step, which loads the libraries and kernels that training needs."""
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten()
    ).to(device)
    optimizer = torch.optim.Adam(network.parameters())
    features = network(torch.zeros(16, 3, 32, 32, device=device))
    (features @ features.mT).sum().backward()
    optimizer.step()


def _resident() -> int:
    """Resident set of this process in bytes; on systems other than Linux its maximum so far."""
    if sys.platform == "linux":
        return _status("VmRSS")
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _status(name: str) -> int:
    """A field of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    values = dict(line.split(":", 1) for line in lines)
    return int(values[name].split()[0]) * 1024
