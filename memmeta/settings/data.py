"""Which data set, and the shape of its tasks."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, Self

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from memmeta import data
from memmeta.data import DATA_SETS, class_splits, is_registered, own, unknown
from memmeta.data.class_splits import Fractions
from memmeta.data.own import CHANNELS, OwnShape
from memmeta.data.sources import DataSource, TaskShape
from memmeta.errors import InputError
from memmeta.metric import Metric
from memmeta.settings.limits import MOST, MOST_PIXELS
from memmeta.settings.records import Before, Config

if TYPE_CHECKING:
    from memmeta.data.dataset import Dataset

_DEFAULT_SHAPE = OwnShape(84, 3)
"""The shape of images that are used directly from a folder."""


class DataConfig(Config):
    """Which data set, and the shape of its tasks.

    Own images have the name under which `memmeta data prepare` prepared them, or are given by
    their `folder`. Their `image_size` and `channels` are filled in, so that a config can be used
    without the data, for example to predict memory.

    Examples:
        >>> DataConfig(name="cifar_fs", shots=1).evaluation_shape
        TaskShape(ways=5, shots=1, queries=15, rotations=False)
        >>> DataConfig(folder="birds", image_size=32).source.input_shape
        (3, 32, 32)
    """

    name: str = "glyphs"
    """The data set: a name in `memmeta.data.DATA_SETS`, or that of own images."""
    ways: int = Field(5, le=MOST, validate_default=True)
    """Classes per task; 1 for regression."""
    train_ways: int | None = Field(None, ge=2, le=MOST)
    """Classes per training task; None: `ways`. More classes make harder tasks to learn from
    (Snell et al. 2017, section 3.1). Only for heads that start at 0."""
    shots: int = Field(5, ge=1, le=MOST)
    """Support images per class, or support points in regression."""
    queries: int = Field(5, ge=1, le=MOST)
    """Query images per class, or query points, in training (the paper: 5)."""
    eval_queries: int = Field(15, ge=1, le=MOST)
    """Query images per class, or query points, in validation and test; 15 is usual."""
    rotations: bool = False
    """Count each class rotated by 90, 180 and 270 degrees as three more classes, for characters.

    Images are rotated when they are sampled: one cache serves both settings.
    """
    folder: Path | None = Field(None, exclude=True)
    """A folder of own images, which are prepared at first use. A relative path is relative to the
    YAML file, in Python to the current folder. Records do not contain where the images came from:
    they have the name, the shape and the digest of the data."""
    split: Fractions | Path | None = Field(None, exclude=True)
    """For `folder`: see `memmeta.data.preparation.Recipe.split`."""
    split_seed: int = Field(0, exclude=True)
    """For `folder`: another seed draws another split of the classes."""
    image_size: Annotated[int | None, Before(None)] = Field(None, ge=1, le=MOST_PIXELS)
    """Height and width of own images; None: other data, or as prepared, or 84 for a folder."""
    channels: Annotated[int | None, Before(None)] = None
    """Channels of own images, 1 or 3; None: other data, or as prepared, or 3."""

    @property
    def source(self) -> DataSource:
        """The data set's description, which needs no files."""
        if is_registered(self.name):
            return DATA_SETS[self.name]
        assert self.image_size is not None
        assert self.channels is not None
        return own.own_source(self.name, OwnShape(self.image_size, self.channels))

    @property
    def training_shape(self) -> TaskShape:
        """The shape of training tasks."""
        return TaskShape(self.train_ways or self.ways, self.shots, self.queries, self.rotations)

    @property
    def evaluation_shape(self) -> TaskShape:
        """The shape of validation and test tasks."""
        return TaskShape(self.ways, self.shots, self.eval_queries, self.rotations)

    @property
    def metric(self) -> Metric:
        """The metric of a run on this data."""
        return self.source.metric

    @property
    def chance_level(self) -> float:
        """The expected metric of a learner that knows nothing."""
        return self.source.chance_level(self.ways)

    def load(self, data_root: Path, cache: Path | None = None) -> "Dataset":
        """Load the data set, after preparing the images of `folder` if necessary.

        The progress of a preparation is shown on stderr.

        Args:
            data_root: the folder with the data sets.
            cache: the folder of prepared data; None: `cache` in the data root.

        Raises:
            InputError: the data are missing, damaged, or of another shape than the config says.
        """
        if self.folder is not None:
            # PyTorch takes seconds to import.
            from memmeta.data.preparation import Recipe, prepare_images
            from memmeta.progress import progress_here

            assert self.image_size is not None
            assert self.channels is not None
            recipe = Recipe(
                self.name,
                self.folder,
                split=self.split,
                split_seed=self.split_seed,
                image_size=self.image_size,
                channels=self.channels,
            )
            prepare_images(recipe, data_root, cache, progress=progress_here())
        if is_registered(self.name):
            return data.load(self.name, data_root, cache)
        dataset = self.source.load(data_root, cache)
        if dataset.input_shape != self.source.input_shape:
            raise InputError(
                f"{self.name}: the images have the shape {dataset.input_shape}, the config says "
                f"{self.source.input_shape}; another data set was prepared under this name"
            )
        return dataset

    @model_validator(mode="before")
    @classmethod
    def _fill_in_own_images(cls, values: Any) -> Any:
        """Fill in the name and the shape of own images, and check that there are such images."""
        if not isinstance(values, Mapping):
            return values
        filled = dict(values)
        folder = filled.get("folder")
        if folder is not None and filled.get("name") is None and isinstance(folder, str | Path):
            filled["name"] = own.name_of(Path(folder))
        name = filled.get("name", cls.model_fields["name"].default)
        if not isinstance(name, str) or is_registered(name):
            return filled
        shape = _DEFAULT_SHAPE
        if folder is None and filled.get("image_size") is None:
            found = own.find_shape(name, own.default_cache())
            if found is None:
                _refuse("name", unknown(name, own.default_cache()), name)
            shape = found
        for field, value in shape._asdict().items():
            if filled.get(field) is None:
                filled[field] = value
        return filled

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        return name if is_registered(name) else own.check_name(name)

    @field_validator("split", mode="before")
    @classmethod
    def _parse_split(cls, split: object) -> object:
        return class_splits.as_fractions(split) or split if isinstance(split, str) else split

    @field_validator("split")
    @classmethod
    def _check_split(cls, split: Fractions | Path | None) -> Fractions | Path | None:
        return class_splits.check_fractions(split) if isinstance(split, tuple) else split

    @field_validator("folder", "split")
    @classmethod
    def _absolute(cls, place: object, info: ValidationInfo) -> object:
        """Workers and later commands run in other folders."""
        base = (info.context or {}).get("folder") or Path.cwd()
        return Path(base).absolute() / place if isinstance(place, Path) else place

    @field_validator("channels")
    @classmethod
    def _check_channels(cls, channels: int | None) -> int | None:
        if channels not in (None, *CHANNELS):
            raise ValueError("1 or 3 is accepted")
        return channels

    @model_validator(mode="after")
    def _check_own_images(self) -> Self:
        if is_registered(self.name):
            for field in ("folder", "image_size", "channels"):
                if getattr(self, field) is not None:
                    raise ValueError(
                        f"{field} is for own images, and {self.name} is a data set of memmeta or "
                        "of a package: give own images another name"
                    )
        if self.split is not None and self.folder is None:
            raise ValueError("split goes with folder: prepared images have a split")
        return self

    @field_validator("ways")
    @classmethod
    def _check_ways(cls, ways: int, info: ValidationInfo) -> int:
        if "name" not in info.data:  # refused itself
            return ways
        name = info.data["name"]
        if not _kind(name).has_classes:
            if ways != 1:
                raise ValueError(f"{name} has no classes, ways should be 1")
        elif ways < 2:
            raise ValueError("input should be greater than or equal to 2")
        return ways

    @field_validator("train_ways")
    @classmethod
    def _check_train_ways(cls, ways: int | None, info: ValidationInfo) -> int | None:
        name = info.data.get("name")
        if ways is not None and name is not None and not _kind(name).has_classes:
            raise ValueError(f"{name} has no classes")
        return ways

    @field_validator("rotations")
    @classmethod
    def _check_rotations(cls, rotations: bool, info: ValidationInfo) -> bool:
        name = info.data.get("name")
        if rotations and name is not None and not _kind(name).rotation_makes_class:
            fitting = DATA_SETS.names(lambda other: other.rotation_makes_class)
            raise ValueError(f"for {', '.join(fitting)} and own images only")
        return rotations


def _kind(name: str) -> DataSource:
    """The data set of a name; own images of any shape have the same properties."""
    return DATA_SETS[name] if is_registered(name) else own.own_source(name, _DEFAULT_SHAPE)


def _refuse(field: str, reason: str, value: object) -> NoReturn:
    """Refuse the value of a field in a validator of the whole model."""
    error = PydanticCustomError("value_error", "{reason}", {"reason": reason})
    raise ValidationError.from_exception_data(
        "DataConfig", [{"type": error, "loc": (field,), "input": value}]
    )
