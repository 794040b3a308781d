"""Fake tensors: shapes without content, for counting the memory of real tensors on the CPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import (
    TorchDispatchMode,
    _disable_current_modes,
    _get_current_dispatch_mode_stack,
)

_NORMS = (torch.ops.aten.native_batch_norm.default, torch.ops.aten.native_group_norm.default)


@contextmanager
def fake_tensors() -> Iterator[None]:
    """Make every new tensor a fake tensor within the `with` block."""
    with FakeTensorMode(), _CpuKernels():  # type: ignore[no-untyped-call]
        yield


def fakes_are_on() -> bool:
    """Whether new tensors are fake tensors here."""
    return any(isinstance(mode, FakeTensorMode) for mode in _get_current_dispatch_mode_stack())


@contextmanager
def real_tensors() -> Iterator[None]:
    """Make real tensors, which nothing counts, inside a block of `fake_tensors`."""
    with _disable_current_modes():
        yield


class _CpuKernels(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Corrects the results of PyTorch's fake kernels where they differ from the CPU kernels."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in _NORMS:
            # The statistics have the dtype of the weight, which is float32 under autocast.
            output, mean, deviation = result
            return output, mean.to(args[1].dtype), deviation.to(args[1].dtype)
        if func is torch.ops.aten.view.default:
            return _with_real_strides(result, args[0])
        return result


def _with_real_strides(view: Tensor, base: Tensor) -> Tensor:
    """A fake view of `base` with the strides that a real view has in dimensions of size 1.

    Kernels use them to decide whether images with a single channel are channels last.
    """
    with no_dispatch():
        strides = (
            torch.empty_strided(base.shape, base.stride(), device="meta").view(view.shape).stride()
        )
    return view if strides == view.stride() else view.as_strided(view.shape, strides)
