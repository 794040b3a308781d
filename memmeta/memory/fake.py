"""Fake tensors, with shapes and no content, that take the memory that real ones take on the CPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode

_NORMS = (torch.ops.aten.native_batch_norm.default, torch.ops.aten.native_group_norm.default)


@contextmanager
def fake_tensors() -> Iterator[None]:
    """Make every new tensor a fake one."""
    with FakeTensorMode(), _AsOnTheCPU():  # type: ignore[no-untyped-call]
        yield


class _AsOnTheCPU(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Corrects results of PyTorch's fake kernels that differ from those of the CPU's."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in _NORMS:
            # The statistics have the type of the weight: float32 under autocast.
            output, mean, deviation = result
            return output, mean.to(args[1].dtype), deviation.to(args[1].dtype)
        if func is torch.ops.aten.view.default:
            return _with_strides_of_view(result, args[0])
        return result


def _with_strides_of_view(view: Tensor, of: Tensor) -> Tensor:
    """With the strides that the view has along dimensions of size 1, by which kernels go too.

    They decide whether images of a single channel count as channels last.
    """
    with no_dispatch():
        strides = (
            torch.empty_strided(of.shape, of.stride(), device="meta").view(view.shape).stride()
        )
    return view if strides == view.stride() else view.as_strided(view.shape, strides)
