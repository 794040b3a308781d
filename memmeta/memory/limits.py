"""What a trial may take of a machine's memory: how much to reserve, and a cap to hold it there."""

import ctypes
import math
import sys
from pathlib import Path

import torch
from torch import nn

_MIB = 2**20

# What the count of live tensors cannot see: holes in the heap, and what oneDNN's kernels allocate
# for themselves. Measured on two x86 cores for 35 configs in fresh processes (Conv4, and ResNet-12
# twice, 16 to 64 filters, 28 to 84 pixels, 1 to 16 tasks, memory_reduced, anil and maml, all norms,
# with and without chunks), the resident set grew by 1.04 to 1.33 times the prediction at 28 and 32
# pixels from 150 MiB up, by 1.26 to 1.47 times in steps at 84 pixels, and by 1.6 to 1.98 times
# where a validation of big images was the peak; below 150 MiB by up to 61 MiB more than predicted.
_FACTOR = {"cpu": 2.0, "cuda": 1.25}
_CONSTANT = {"cpu": 64 * _MIB, "cuda": 256 * _MIB}
# On CUDA PyTorch's allocator holds its own in blocks, and cuBLAS' and cuDNN's workspaces are in it:
# there the numbers are a guess, which no run has confirmed yet.

# A CUDA context with the libraries' kernels is smaller on any card: what is beyond is another's.
_MOST_CONTEXT = 1024 * _MIB

# Data of a process that is no tensor of it: what the heap grows by beyond a request (64 MiB, see
# `memmeta.system.runtime`), an arena as large and a stack of 8 MiB a thread of PyTorch, and a dozen
# threads that Ray may add.
_SLACK = 256 * _MIB
_THREAD_SLACK = 72 * _MIB


def process_overhead(device: torch.device) -> int:
    """Bytes that a process which trains on `device` takes there beside live tensors.

    Takes a tiny training step. On the CPU it is the resident set of this process after it, Python
    and libraries included. On CUDA it is the context with the libraries' handles and kernels: all
    that is used of the device and not by PyTorch's allocator here, at most 1 GiB: right where this
    process has the device for itself, and too much by less than 1 GiB where it has not.
    """
    _tiny_step(device)
    if device.type == "cuda":  # only on CUDA
        free, total = torch.cuda.mem_get_info(device)
        return min(total - free - torch.cuda.memory_reserved(device), _MOST_CONTEXT)
    return _resident()


def reservation(device: torch.device, predicted: int, overhead: int) -> int:
    """Bytes to reserve for a trial, in whole MiB: what its process is expected not to exceed.

    Args:
        device: where the trial runs.
        predicted: as by `memmeta.memory.prediction.predict_trial_memory`, of the whole trial.
        overhead: as by `process_overhead`.
    """
    tensors = _FACTOR[device.type] * predicted + _CONSTANT[device.type]
    return math.ceil((tensors + overhead) / _MIB) * _MIB


def cap(device: torch.device, reserved: int, overhead: int) -> None:
    """Let this process from now on take no more than `reserved` bytes of the device.

    What goes beyond raises an error that `is_out_of_memory` knows. Call it after
    `memmeta.system.runtime.configure_process`, and again for the next trial, when the tensors of
    the last one are gone. On the CPU of Linux it bounds the process' data, with slack for what is
    no tensor and for the heap that the last trial left; other systems have no such limit.

    Args:
        device: where the trial runs.
        reserved: as by `reservation`.
        overhead: as was given to it.
    """
    room = reserved - overhead
    if device.type == "cuda":  # only on CUDA
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, room / total), device)
    elif sys.platform == "linux":
        _cap_data(room)


def _cap_data(room: int) -> None:
    # Only Unix has it.
    import resource

    # What the last trial left goes back to the system, as far as it is at the heap's end.
    ctypes.CDLL(None).malloc_trim(0)
    limit = _status("VmData") + room + _SLACK + torch.get_num_threads() * _THREAD_SLACK
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    soft = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory was refused, by whatever allocator or library."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(part in str(error) for part in _REFUSALS)


_REFUSALS = (
    "can't allocate memory",  # PyTorch's CPU allocator
    "std::bad_alloc",
    "could not create a primitive",  # oneDNN, which finds no room for its code
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def _tiny_step(device: torch.device) -> None:
    """What makes a process load all that training needs."""
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten()
    ).to(device)
    optimizer = torch.optim.Adam(network.parameters())
    features = network(torch.zeros(16, 3, 32, 32, device=device))
    (features @ features.mT).sum().backward()
    optimizer.step()


def _resident() -> int:
    if sys.platform == "linux":
        return _status("VmRSS")
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _status(name: str) -> int:
    """A number of Linux' account of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    values = dict(line.split(":", 1) for line in lines)
    return int(values[name].split()[0]) * 1024
