"""PyTorch devices by name."""

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import PlainValidator

from memmeta.errors import InputError, shown

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
    except TypeError:
        raise InputError(f"device {shown(name)}: a name such as cpu or cuda is accepted") from None
    except (RuntimeError, AssertionError, ImportError) as error:
        raise InputError(f"device {name}: {str(error).splitlines()[0]}") from None
    return device


if TYPE_CHECKING:
    AnyDevice = str | torch.device | None
else:  # without importing PyTorch
    AnyDevice = Annotated[Any, PlainValidator(chosen_device)]
"""A device as an argument (see `memmeta.settings.arguments`)."""
