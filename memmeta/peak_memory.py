"""Peak memory of a training step: the largest number of bytes in live tensors during the step."""

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
    """Run `step` and measure its peak memory.

    Args:
        step: the function to measure.
        held: returns the tensors alive before the step (parameters, gradients, optimiser state).
            It is a function because a list would keep tensors alive that the step releases.
        device: on CUDA the peak is the allocator's `max_memory_allocated`. It costs nothing and
            counts every tensor of this process. On the CPU each operation is watched, which slows
            the step, so measure a few steps only.

    Returns:
        The result of `step` and its peak in bytes.

    Examples:
        >>> _, peak = measure_peak(lambda: torch.zeros(1024), list, torch.device("cpu"))
        >>> peak
        4096
    """
    if device.type == "cuda":  # only on CUDA
        torch.cuda.reset_peak_memory_stats(device)
        result = step()
        return result, torch.cuda.max_memory_allocated(device)
    with LiveBytes() as live:
        live.count(held())
        result = step()
    return result, live.peak


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the storages that operations touch, from first touch to release.

    It works on real and on fake tensors. It does not see memory that a kernel allocates and frees
    inside one operation.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        """The largest number of bytes alive at once."""
        self._current = 0
        self._alive: dict[int, tuple[weakref.KeyedRef[int, torch.UntypedStorage], int]] = {}
        self._released: list[weakref.KeyedRef[int, torch.UntypedStorage]] = []

    @property
    def current(self) -> int:
        """Bytes alive now."""
        self._forget_released()
        return self._current

    def count(self, tensors: Iterable[Any]) -> None:
        """Count each storage of `tensors` once. Other objects are ignored."""
        self._forget_released()  # before another storage is found at the same address
        for tensor in tensors:
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        self.peak = max(self.peak, self._current)

    def _forget_released(self) -> None:
        while self._released:
            _, size = self._alive.pop(self._released.pop().key)
            self._current -= size

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = id(storage)
        if key not in self._alive:
            # PyTorch keeps one Python object per storage for as long as the storage lives. The
            # callback is not Python code, because an interrupt in it would be lost.
            released = weakref.KeyedRef(storage, self._released.append, key)
            self._alive[key] = released, storage.nbytes()
            self._current += storage.nbytes()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.count(tree_leaves((args, kwargs, result)))
        return result
