"""What a run is: its data, its learner, its budget, its seed. Unknown keys are errors."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from memmeta.errors import LONGEST_REASON, InputError, shortened, shown
from memmeta.metric import ACCURACY, MSE, Metric


class Config(BaseModel):
    """Base of all configs: immutable, and a key that no field has is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    def explicit(self) -> dict[str, Any]:
        """All fields, with None replaced where it stands for a value that other fields decide."""
        return self.model_dump()


RECORD_VERSION = 2
"""Version of the records that this program writes: raised whenever older programs would misread
them. Records of all versions up to this one are read; those of version 1 have no number."""


@dataclass(frozen=True)
class Before:
    """Marks a field that version 0.1.0 did not have: `Annotated[type, Before(value)] = default`.

    Records (ledgers, checkpoints, exports, tables of trials) hold every field of the version that
    wrote them, so a field is missing exactly when the record is older than the field.
    """

    value: Any
    """What runs did before the field existed. It may differ from the field's default."""


MOST = 10_000
"""Of whatever a step, a network or a run has many of. Far fewer fill any machine, and of more it
takes long to find out that they do."""

MOST_TASKS = 1_000_000_000
"""Tasks or outer steps of a run: more than a year of work on any machine."""

Scaling = Literal["none", "sqrt_dim", "standardize"]


class DataConfig(Config):
    """Which data, and the shape of an episode."""

    name: Literal[
        "glyphs",
        "cifar_fs",
        "fc100",
        "miniimagenet",
        "tieredimagenet",
        "omniglot",
        "sinusoid",
    ] = "glyphs"
    """The data set."""
    ways: int = Field(5, le=MOST, validate_default=True)
    """Classes in an episode; 1 for sinusoid, which has none."""
    train_ways: int | None = Field(None, ge=2, le=MOST)
    """Classes in an episode of training; None: `ways`. More of them make harder tasks to learn from
    (Snell et al. 2017, section 3.1). For heads that begin at 0."""
    shots: int = Field(5, ge=1, le=MOST)
    """Support images a class, or points of a wave."""
    queries: int = Field(5, ge=1, le=MOST)
    """Query images a class, or points, in training (the paper's 5)."""
    eval_queries: int = Field(15, ge=1, le=MOST)
    """Query images a class, or points, in validation and test (the field's 15)."""
    rotations: bool = False
    """Take each character turned by 90, 180 and 270 degrees as three more classes; omniglot only.

    They are turned as they are drawn: one cache serves both.
    """

    @property
    def in_training(self) -> "DataConfig":
        """The shape of an episode of training."""
        return self.model_copy(update={"ways": self.train_ways or self.ways})

    @property
    def outputs(self) -> int:
        """Scores an example: one a class, or one in regression."""
        return self.ways

    @property
    def metric(self) -> Metric:
        """What a run on this data is judged by."""
        return MSE if self.name == "sinusoid" else ACCURACY

    @property
    def uninformed(self) -> float:
        """The metric, in expectation, of a learner that knows nothing.

        That is 1 / `ways`: one guess is as good as another. For sinusoid it is the error of always
        predicting 0: half of the mean squared amplitude, since phases spread evenly over a whole
        period of the sine's square.
        """
        if self.name != "sinusoid":
            return 1 / self.ways
        # That module imports this one.
        from memmeta.data.sets.sinusoid import AMPLITUDE

        low, high = AMPLITUDE
        return (low**2 + low * high + high**2) / 6

    @field_validator("ways")
    @classmethod
    def _classes(cls, ways: int, info: ValidationInfo) -> int:
        if info.data.get("name") == "sinusoid":
            if ways != 1:
                raise ValueError("sinusoid has no classes, ways should be 1")
        elif ways < 2:
            raise ValueError("input should be greater than or equal to 2")
        return ways

    @field_validator("train_ways")
    @classmethod
    def _training_classes(cls, ways: int | None, info: ValidationInfo) -> int | None:
        if ways is not None and info.data.get("name") == "sinusoid":
            raise ValueError("sinusoid has no classes")
        return ways

    @field_validator("rotations")
    @classmethod
    def _characters(cls, rotations: bool, info: ValidationInfo) -> bool:
        # A photograph upside down is no new class, and among glyphs an arrow turned is another one.
        if rotations and info.data.get("name") not in ("omniglot", None):
            raise ValueError("for omniglot only")
        return rotations


class LearnerConfig(Config):
    """The backbone (theta), the head (phi) and how each is learned."""

    algorithm: Literal["memory_reduced", "itd_bio", "anil", "maml"] = "memory_reduced"
    """How the hypergradient is computed: a module of memmeta.algorithms."""
    kind: Literal["cached", "naive"] = "cached"
    """For itd_bio and anil: support features once a task, or anew at every inner step."""
    first_order: bool = False
    """For itd_bio, anil and maml: drop second derivatives (for memory_reduced: cg_steps = 0)."""
    backbone: Literal["conv4", "resnet12", "mlp"] = "conv4"
    """The network up to the head's last layers."""
    filters: int = Field(64, ge=1, le=MOST)
    """Channels of Conv4's blocks (the paper: 64 at 32x32, 32 at 84x84) or ResNet-12's first."""
    norm: Literal["batch", "frozen", "group"] = "batch"
    """BatchNorm with batch statistics, as the paper has it, or with constant ones, or GroupNorm."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the shared backbone's convolutions; what is adapted, and all sums, stay in float32."""
    head: Literal["linear", "mlp", "last_block"] = "linear"
    """What phi is: the last linear layer, one with a hidden layer, or one with the last block."""
    head_width: int = Field(64, ge=1, le=MOST)
    """Hidden units of the mlp head."""
    feature_scaling: Scaling = "standardize"
    """How features are scaled for the head (see `memmeta.networks.heads`); the paper: none."""
    ridge: float = Field(0.01, ge=0, allow_inf_nan=False)
    """L2 term of the support loss, (ridge / 2) * ||phi||^2, of all that the inner loop adapts."""
    inner_steps: int = Field(20, ge=0, le=MOST)
    """K: gradient steps of the head on the support set."""
    inner_lr: float = Field(1.0, gt=0, allow_inf_nan=False)
    """lambda_phi: step size of the head."""
    cg_steps: int = Field(20, ge=0, le=MOST)
    """N: memory_reduced's conjugate-gradient iterations (0 gives its first-order hypergradient)."""
    curvature: Annotated[Literal["hessian", "gauss_newton"] | None, Before("hessian")] = None
    """The matrix of memory_reduced's linear solve, alike for head linear. Those of the other heads
    have an indefinite Hessian, at which conjugate gradient stops; None: gauss_newton for them."""
    outer_lr: float = Field(1e-3, gt=0, le=1e6, allow_inf_nan=False)
    """lambda_theta: Adam's step size for the backbone. Far above 1e6 Adam itself overflows."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Of outer_lr: the same throughout, as in the paper, or half a cosine, down to 0 at the end."""
    weight_decay: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Of all that is learned, decoupled (AdamW); the paper has none."""
    augment: bool = False
    """Train on random crops and mirror images, of photographs only; the paper has none."""
    task_batch: int = Field(8, ge=1, le=MOST)
    """|B|: tasks in one outer step."""
    chunk: int | None = Field(None, ge=1)
    """Images in the backbone at a time, which bounds its memory; None: all. Whole tasks cost
    little on a CPU. memory_reduced also takes less than a task, with norm batch whole sets, and
    pays for that with about a second forward pass. Holds in evaluation too, with norm batch as far
    as whole sets allow."""
    task_pool: int | None = Field(None, ge=1, le=MOST_TASKS)
    """Train on so many tasks in turn, not on a new one each time."""
    warm_start: bool = False
    """For memory_reduced and itd_bio with a task_pool: begin where the task's last visit ended."""

    @property
    def learns_initial_head(self) -> bool:
        """Whether phi^0 is learned, and not a fixed starting point."""
        return self.algorithm in ("anil", "maml")

    @property
    def solved_curvature(self) -> Literal["hessian", "gauss_newton"]:
        """`curvature`, or where it is None what suits the algorithm and the head."""
        if self.curvature is not None:
            return self.curvature
        solves = self.algorithm == "memory_reduced"
        return "gauss_newton" if solves and self.head != "linear" else "hessian"

    def explicit(self) -> dict[str, Any]:
        """As `Config.explicit`."""
        return super().explicit() | {"curvature": self.solved_curvature}

    @model_validator(mode="after")
    def _combination(self) -> Self:
        unrolled = self.algorithm != "memory_reduced"
        pool = self.task_pool
        refusals = {
            "kind naive is for itd_bio and anil": self.kind == "naive"
            and self.algorithm not in ("itd_bio", "anil"),
            "first_order is not for memory_reduced: set cg_steps to 0": self.first_order
            and not unrolled,
            "maml adapts every block: its head is linear or mlp": self.algorithm == "maml"
            and self.head == "last_block",
            "backbone mlp has no blocks: its head is linear or mlp": self.backbone == "mlp"
            and self.head == "last_block",
            "backbone mlp has no norm: leave norm at batch": self.backbone == "mlp"
            and self.norm != "batch",
            "precision bfloat16 is for a shared convolutional backbone: maml has none, and mlp is "
            "none": self.precision == "bfloat16"
            and (self.algorithm == "maml" or self.backbone == "mlp"),
            "chunk is not for maml, which takes a task at a time": self.algorithm == "maml"
            and self.chunk is not None,
            "warm_start needs a task_pool": self.warm_start and pool is None,
            "warm_start is not for anil and maml, which learn where to start": self.warm_start
            and self.learns_initial_head,
            "task_pool has to hold a task_batch": pool is not None and pool < self.task_batch,
        }
        for message, refused in refusals.items():
            if refused:
                raise ValueError(message)
        return self


class TrainingConfig(Config):
    """The budget of a run, and when it is validated."""

    iterations: int | None = Field(None, ge=1, le=MOST_TASKS)
    """Outer steps; give this or `tasks`."""
    tasks: int | None = Field(None, ge=1, le=MOST_TASKS)
    """Tasks seen in all: outer steps times task_batch, rounded up to whole steps."""
    evaluations: int = Field(4, ge=1, le=MOST)
    """Validations, evenly spaced, the last one at the end."""
    val_tasks: int = Field(200, ge=2, le=1_000_000)
    """Validation episodes, the same ones for every run of a data set."""
    test_tasks: int = Field(600, ge=2, le=1_000_000)
    """Test episodes, likewise."""

    @property
    def amount(self) -> str:
        """How much a run trains, in words."""
        return f"{self.iterations} outer steps" if self.iterations else f"{self.tasks} tasks"

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if (self.iterations is None) == (self.tasks is None):
            raise ValueError("give either iterations or tasks")
        return self


class RunConfig(Config):
    """Everything that decides a run's numbers."""

    data: DataConfig = DataConfig()
    learner: LearnerConfig = LearnerConfig()
    training: TrainingConfig = TrainingConfig(iterations=2000)
    seed: int = Field(0, ge=0, lt=2**64)
    """Decides the initial weights and the training episodes; as large as PyTorch takes it."""

    @model_validator(mode="after")
    def _right_backbone(self) -> Self:
        numbers, mlp = self.data.name == "sinusoid", self.learner.backbone == "mlp"
        if numbers != mlp:
            raise ValueError(
                f"learner.backbone {self.learner.backbone} does not suit data.name "
                f"{self.data.name}: mlp is for sinusoid, and sinusoid needs mlp"
            )
        return self

    @model_validator(mode="after")
    def _photographs(self) -> Self:
        # The mirror image of a character is another one.
        photographs = ("cifar_fs", "fc100", "miniimagenet", "tieredimagenet")
        if self.learner.augment and self.data.name not in photographs:
            raise ValueError(f"learner.augment is for {', '.join(photographs)}")
        return self

    @model_validator(mode="after")
    def _heads_that_begin_at_0(self) -> Self:
        # What another head has learned of a class, or how it begins, is for so many classes.
        learner = self.learner
        begins_at_0 = learner.head == "linear" and not learner.learns_initial_head
        if self.data.train_ways not in (None, self.data.ways) and not begins_at_0:
            raise ValueError(
                "data.train_ways is for algorithm memory_reduced or itd_bio with head linear"
            )
        return self

    @model_validator(mode="after")
    def _whole_chunks(self) -> Self:
        chunk, data, learner = self.learner.chunk, self.data.in_training, self.learner
        if chunk is None:
            return self
        support, query = data.ways * data.shots, data.ways * data.queries
        if learner.algorithm != "memory_reduced" and chunk % (support + query):
            raise ValueError(
                f"learner.chunk {chunk} would change the gradient: {learner.algorithm} "
                f"differentiates through a task as a whole, {support + query} images each"
            )
        mixes = learner.norm == "batch" and learner.backbone != "mlp"
        part_of_a_task = learner.algorithm == "memory_reduced" and chunk < support + query
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

    def flat(self) -> dict[str, Any]:
        """All settings in one dict, under the names of their fields; the data set as `dataset`."""
        data = self.data.model_dump(exclude_none=True)
        return {
            "dataset": data.pop("name"),
            **data,
            **{k: v for k, v in self.learner.explicit().items() if v is not None},
            **self.training.model_dump(exclude_none=True),
            "seed": self.seed,
        }

    @property
    def key(self) -> str:
        """Twelve hex digits that name this run: equal exactly when every setting is.

        It stays the same in later versions: a later field counts only if the run does something
        that was not possible before (see `Before`).
        """
        values: dict[str, Any] = self.model_dump()
        for part in ("data", "learner", "training"):
            config: Config = getattr(self, part)
            old = values_before(type(config)).items()
            values[part] = {k: v for k, v in config.explicit().items() if (k, v) not in old}
        text = json.dumps(values, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def values_before(model: type[Config]) -> dict[str, Any]:
    """The fields of `model` that older records lack, each with what runs did before it existed."""
    return {
        name: mark.value
        for name, field in model.model_fields.items()
        for mark in field.metadata
        if isinstance(mark, Before)
    }


def completed(model: type[Config], record: Any) -> Any:
    """A record's values for `model`, with what the fields that it lacks meant when it was written.

    Configs within configs are completed too. What is no dict is returned as it is.

    Examples:
        >>> completed(RunConfig, {"seed": 3, "learner": {"ridge": 0.1}})["learner"]["ridge"]
        0.1
    """
    if not isinstance(record, dict):
        return record
    values = values_before(model) | record
    for name, field in model.model_fields.items():
        part = field.annotation
        if name in record and isinstance(part, type) and issubclass(part, Config):
            values[name] = completed(part, record[name])
    return values


def check_version(record: Mapping[str, Any], source: str) -> None:
    """Refuse a record that this program might misread.

    Raises:
        InputError: a later version of memmeta wrote it, or its version is no number.
    """
    version = record.get("version", 1)
    if type(version) is not int:
        raise InputError(f"{source}: version: a whole number is accepted")
    if version > RECORD_VERSION:
        raise InputError(
            f"{source}: written by a later version of memmeta (records of version {version}; this "
            f"one reads up to {RECORD_VERSION}). Use that version"
        )


C = TypeVar("C", bound=Config)

_MOST_PROBLEMS = 8
"""Problems of one file that a message names."""


def parse(model: type[C], values: object, source: str) -> C:
    """Validate `values` against `model`.

    Raises:
        InputError: naming `source`, the key and what is accepted there.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{source}: {described(error)}") from None


def described(error: ValidationError) -> str:
    """What is wrong with a config, in one line: the first problems, and how many there are more."""
    problems = error.errors(include_url=False)
    more = len(problems) - _MOST_PROBLEMS
    rest = f"; and {more} more" if more > 0 else ""
    return "; ".join(map(_describe, problems[:_MOST_PROBLEMS])) + rest


def _describe(problem: Any) -> str:
    place = shortened(".".join(map(str, problem["loc"])))
    if problem["type"] == "extra_forbidden":
        return f"unknown key {place}"
    message = shortened(problem["msg"].removeprefix("Value error, "), LONGEST_REASON)
    message = message[0].lower() + message[1:]
    got = "" if isinstance(problem["input"], dict) else f", got {shown(problem['input'])}"
    return f"{place}: {message}{got}" if place else message
