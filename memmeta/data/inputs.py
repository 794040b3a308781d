"""What a trained model needs to know of its data set to take new examples."""

from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, model_validator

from memmeta.settings.limits import MOST
from memmeta.settings.records import Config

if TYPE_CHECKING:
    from torch import Tensor

_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Inputs(Config):
    """The shape of a network input, and the normalisation of images.

    Checkpoints contain it, so that a model can be used without its data set.
    """

    input_shape: tuple[Annotated[int, Field(ge=1, le=MOST)], ...]
    """Shape of one network input: (C, H, W) for images, (d,) for points."""
    mean: tuple[_Finite, ...] = ()
    """Per channel of images, on the 0-255 scale; empty for points."""
    std: tuple[_Positive, ...] = ()
    """Per channel of images, on the 0-255 scale; empty for points."""

    @property
    def takes_images(self) -> bool:
        """Whether inputs are images rather than points."""
        return len(self.input_shape) == 3

    def to_input(self, stored: "Tensor") -> "Tensor":
        """As `Dataset.to_input`: normalise uint8 images [..., H, W, C]; points stay as they are."""
        # PyTorch takes seconds to import.
        from memmeta.data.episodes import to_float

        return to_float(stored, self.mean, self.std) if self.takes_images else stored

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        if len(self.input_shape) not in (1, 3):
            raise ValueError("input_shape: (C, H, W) or (d,) is accepted")
        channels = self.input_shape[0] if self.takes_images else 0
        if not len(self.mean) == len(self.std) == channels:
            raise ValueError(f"mean and std: {channels} values each are accepted")
        return self
