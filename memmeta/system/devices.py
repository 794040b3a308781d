"""PyTorch devices by name."""

from typing import TYPE_CHECKING

from memmeta.errors import InputError

if TYPE_CHECKING:
    import torch


def chosen_device(name: "str | torch.device | None" = None) -> "torch.device":
    """The device called `name`; by default a GPU if there is one.

    Raises:
        InputError: there is no such device, or it cannot compute.

    Examples:
        >>> chosen_device("cpu")
        device(type='cpu')
    """
    # PyTorch takes seconds to import, and most commands do not need it.
    import torch

    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        # `item`, because a meta device can make tensors but has no numbers.
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, ImportError, TypeError) as error:
        raise InputError(f"device {name}: {str(error).splitlines()[0]}") from None
    return device
