"""Peak memory of a training step: the most bytes that live tensors hold at any moment of it."""

import weakref
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

T = TypeVar("T")


def measure_peak(
    step: Callable[[], T], held: Callable[[], Iterable[Tensor]], device: torch.device
) -> tuple[T, int]:
    """Run `step` and return its result and its peak in bytes.

    Args:
        step: what to measure.
        held: gives the tensors alive before it (parameters, gradients, optimiser state). A
            function, since a list of them would keep alive what the step releases.
        device: on CUDA the peak is the allocator's `max_memory_allocated`, at no cost, and
            counts every tensor of this process. On the CPU each operation is watched, which
            slows the step, so measure a few steps only.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        result = step()
        return result, torch.cuda.max_memory_allocated(device)
    with LiveBytes() as live:
        live.count(held())
        result = step()
    return result, live.peak


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the storages that operations touch, from first touch to release.

    Works alike on real and on fake tensors. What a kernel allocates and frees inside one
    operation is not seen.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.current = 0
        """Bytes alive now."""
        self.peak = 0
        """The most bytes that were alive at once."""
        self._sizes: dict[int, int] = {}

    def count(self, tensors: Iterable[Any]) -> None:
        """Count the storages of `tensors` (whatever is no tensor is passed over), each once."""
        for tensor in tensors:
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        self.peak = max(self.peak, self.current)

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = id(storage)
        if key not in self._sizes:
            # PyTorch keeps one Python object a storage for as long as the storage lives.
            weakref.finalize(storage, self._release, key).atexit = False
            self._sizes[key] = storage.nbytes()
            self.current += storage.nbytes()

    def _release(self, key: int) -> None:
        self.current -= self._sizes.pop(key)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.count(tree_leaves((args, kwargs, result)))
        return result
