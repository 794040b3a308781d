"""The config of a run."""

import hashlib
import json
from typing import Any, Self

from pydantic import Field, model_validator

from memmeta.algorithms import ALGORITHMS
from memmeta.data import DATA_SETS
from memmeta.networks import BACKBONES
from memmeta.registry import is_import_path
from memmeta.settings.data import DataConfig
from memmeta.settings.learner import LearnerConfig
from memmeta.settings.records import Config
from memmeta.settings.training import TrainingConfig


class RunConfig(Config):
    """Everything that determines a run's numbers.

    Examples:
        >>> config = RunConfig(training=TrainingConfig(tasks=100), seed=3)
        >>> config.iterations  # of 8 tasks each
        13
        >>> config.key
        'cb805f4f5bb7'
    """

    data: DataConfig = DataConfig()
    """The data set and the shape of its tasks."""
    learner: LearnerConfig = LearnerConfig()
    """The backbone, the head and the algorithm."""
    training: TrainingConfig = TrainingConfig(iterations=2000)
    """The budget, and when the run is validated."""
    seed: int = Field(0, ge=0, lt=2**64)
    """Determines the initial weights and the training episodes. PyTorch accepts up to 64 bits."""

    @model_validator(mode="after")
    def _check_inputs(self) -> Self:
        images = len(self.data.source.input_shape) == 3
        if BACKBONES[self.learner.backbone].takes_images not in (None, images):
            has, takes = ("images", "numbers") if images else ("numbers", "images")
            raise ValueError(
                f"learner.backbone {self.learner.backbone} does not suit data.name "
                f"{self.data.name}: it takes {takes}, and the data are {has}"
            )
        if self.learner.input_size is not None and not images:
            raise ValueError(f"learner.input_size is for images, not for {self.data.name}")
        return self

    @model_validator(mode="after")
    def _check_augmentation(self) -> Self:
        if self.learner.augment and not self.data.source.mirror_keeps_class:
            fitting = DATA_SETS.names(lambda source: source.mirror_keeps_class)
            raise ValueError(f"learner.augment is for {', '.join(fitting)} and own images")
        return self

    @model_validator(mode="after")
    def _check_train_ways(self) -> Self:
        other_ways = self.data.train_ways not in (None, self.data.ways)
        if other_ways and not self.learner.takes_any_ways:
            names = ALGORITHMS.names(lambda algorithm: not algorithm.learns_initial_head)
            raise ValueError(
                f"data.train_ways is for algorithm {' or '.join(names)} with a linear head"
            )
        return self

    @model_validator(mode="after")
    def _check_chunk(self) -> Self:
        chunk, shape, learner = self.learner.chunk, self.data.training_shape, self.learner
        if chunk is None:
            return self
        support, query = shape.ways * shape.shots, shape.ways * shape.queries
        if learner.unrolls and chunk % (support + query):
            raise ValueError(
                f"learner.chunk {chunk} would change the gradient: {learner.algorithm} "
                f"differentiates through a task as a whole, {support + query} images each"
            )
        mixes = learner.norm == "batch" and BACKBONES[learner.backbone].blocks > 0
        part_of_a_task = not learner.unrolls and chunk < support + query
        if mixes and part_of_a_task and (chunk % support or chunk % query):
            raise ValueError(
                f"learner.chunk {chunk} would change the gradient: BatchNorm normalises a set as "
                f"a whole, so a chunk has to be a task of {support + query} images or more, or "
                f"whole support sets of {support} and whole query sets of {query} images (or norm "
                f"group or frozen)"
            )
        return self

    @property
    def iterations(self) -> int:
        """Outer steps of the whole run."""
        if self.training.iterations is not None:
            return self.training.iterations
        assert self.training.tasks is not None
        return -(-self.training.tasks // self.learner.task_batch)

    @property
    def import_paths(self) -> list[str]:
        """The code that this config names by import paths."""
        learner = self.learner
        names = (self.data.name, learner.algorithm, learner.backbone, learner.head)
        return [name for name in names if is_import_path(name)]

    def flat(self) -> dict[str, Any]:
        """All settings in one dict, under the names of their fields; the data set as `dataset`."""
        data = self.data.model_dump(exclude_none=True)
        learner = self.learner.explicit().items()
        return {
            "dataset": data.pop("name"),
            **data,
            **{k: json.dumps(v) if isinstance(v, dict) else v for k, v in learner if v is not None},
            **self.training.model_dump(exclude_none=True),
            "seed": self.seed,
        }

    @property
    def key(self) -> str:
        """Twelve hex digits that name this run: equal exactly if all settings are.

        It is the same in later versions. A later field counts only if the run does something that
        was not possible before (see `Before`), and a renamed one counts under its old name.
        """
        parts = {name: getattr(self, name).recorded() for name in ("data", "learner", "training")}
        text = json.dumps({**parts, "seed": self.seed}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]
