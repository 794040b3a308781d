"""Which data set, and the shape of its tasks."""

from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from memmeta.data import DATA_SETS
from memmeta.data.sources import DataSource, TaskShape
from memmeta.metric import Metric
from memmeta.settings.limits import MOST
from memmeta.settings.records import Config


class DataConfig(Config):
    """Which data set, and the shape of its tasks.

    Examples:
        >>> DataConfig(name="cifar_fs", shots=1).evaluation_shape
        TaskShape(ways=5, shots=1, queries=15, rotations=False)
    """

    name: Annotated[str, AfterValidator(DATA_SETS.check)] = "glyphs"
    """The data set: a name in `memmeta.data.DATA_SETS`."""
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

    @property
    def source(self) -> DataSource:
        """The data set's description, which needs no files."""
        return DATA_SETS[self.name]

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

    @field_validator("ways")
    @classmethod
    def _check_ways(cls, ways: int, info: ValidationInfo) -> int:
        if "name" not in info.data:  # refused itself
            return ways
        name = info.data["name"]
        if not DATA_SETS[name].has_classes:
            if ways != 1:
                raise ValueError(f"{name} has no classes, ways should be 1")
        elif ways < 2:
            raise ValueError("input should be greater than or equal to 2")
        return ways

    @field_validator("train_ways")
    @classmethod
    def _check_train_ways(cls, ways: int | None, info: ValidationInfo) -> int | None:
        name = info.data.get("name")
        if ways is not None and name is not None and not DATA_SETS[name].has_classes:
            raise ValueError(f"{name} has no classes")
        return ways

    @field_validator("rotations")
    @classmethod
    def _check_rotations(cls, rotations: bool, info: ValidationInfo) -> bool:
        name = info.data.get("name")
        if rotations and name is not None and not DATA_SETS[name].rotation_makes_class:
            fitting = DATA_SETS.names(lambda other: other.rotation_makes_class)
            raise ValueError(f"for {', '.join(fitting)} only")
        return rotations
