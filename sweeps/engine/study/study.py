"""A study: one question to one data set, asked with many configs."""

import itertools
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from pydantic import Field, ValidationInfo, field_validator, model_validator

from memmeta.config import (
    Config,
    DataConfig,
    LearnerConfig,
    RunConfig,
    TrainingConfig,
    completed,
    parse,
    values_before,
)
from memmeta.errors import InputError
from memmeta.system.plain_yaml import read_yaml
from memmeta.system.sizes import parse_size
from sweeps.engine.study.outcome import Stage
from sweeps.engine.study.space import DECIDING, Grid, Space, applicable, described

SPACE: Mapping[str, BaseDistribution] = {
    # Standardised features bound the head's Hessian by 2: beyond 1 some tasks begin to oscillate.
    "inner_lr": FloatDistribution(0.03, 3.0, log=True),
    "outer_lr": FloatDistribution(1e-4, 1e-2, log=True),
    "inner_steps": IntDistribution(1, 40, log=True),
    "cg_steps": IntDistribution(1, 20, log=True),
    "task_batch": IntDistribution(2, 32, log=True),
    "ridge": FloatDistribution(1e-4, 1.0, log=True),
}
"""The default space: the quantities that the paper fixes."""

_STAGES: Mapping[Stage, set[str]] = {
    "explore": {"space"},
    "search": {"space", "objective", "memory_limit"},
    "confirm": {"space", "objective", "memory_limit"},
    "tune": {"tuned"},
    "grid": {"tuned", "tuning"},
}
"""The stages, and what of a study besides data, learner and training decides their trials."""

_COMBINED = (
    "algorithm", "kind", "first_order", "backbone", "norm", "head", "chunk", "task_batch",
    "task_pool", "warm_start",
)  # fmt: skip
"""Fields of the learner of which one value can exclude another's."""

_MOST_TRIALS = 100_000
"""Of a sweep: what lays out, records and ranks trials is made for fewer."""

_COMBINATIONS = 20_000
"""So many are tried when a study is made; one that is refused beyond them shows in its trial."""


class Study(Config):
    """What is searched, on what, and with how much."""

    name: str
    """Names the study in the MLflow UI and for the `analysis` commands."""
    data: DataConfig
    """The data set and the shape of its episodes."""
    learner: LearnerConfig = LearnerConfig()
    """Holds what the space or the grid leaves out."""
    training: TrainingConfig
    """The budget of a trial."""
    trials: int = Field(32, ge=1, le=_MOST_TRIALS)
    """Trials in all."""
    space: Space = Field(default_factory=lambda: dict(SPACE))
    """Fields of the learner and where each is searched."""
    grid: Grid = Field(default_factory=dict)
    """Fields of the learner and their values, of which stage grid runs every combination."""
    tuned: Grid = Field(default_factory=dict)
    """Fields whose values are tried anew for each combination; the best go to the seeds."""
    tuning: TrainingConfig | None = None
    """The budget of a trial that tries them; None: that of all others."""
    seeds: int = Field(3, ge=1, le=1000)
    """Training seeds of every config in the stages confirm and grid."""
    objective: tuple[str, ...] = Field(None, validate_default=True)
    """What is optimised: the data's metric, alone or with the peak memory."""
    memory_limit: int | None = None
    """Bytes that the peak memory of a feasible trial stays within."""
    sampler: Literal["tpe", "gp", "nsgaii", "random"] = "tpe"
    """Proposes the trials of stage search."""
    asha: bool = False
    """Whether stage search stops trials early, by asynchronous successive halving."""

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        if not re.fullmatch(r"[\w-]+", name):
            raise ValueError("letters, digits, _ and - are accepted")
        return name

    @field_validator("objective", mode="before")
    @classmethod
    def _of_the_data(cls, objective: object, info: ValidationInfo) -> object:
        if "data" not in info.data:
            return ()
        metric = info.data["data"].metric.name
        names = re.split(r"\s*,\s*", objective) if isinstance(objective, str) else objective
        names = tuple(names) if isinstance(names, list) else names
        if names is None:
            return (metric,)
        if names not in ((metric,), (metric, "memory")):
            raise ValueError(f"accepted are {metric} and {metric},memory")
        return names

    @field_validator("memory_limit", mode="before")
    @classmethod
    def _bytes(cls, value: object) -> int | None:
        return None if value is None else parse_size(value)

    @model_validator(mode="after")
    def _one_objective(self) -> Self:
        if self.asha and len(self.objective) > 1:
            raise ValueError(
                "asha goes with one objective: with memory as a second one, trials that it "
                "stopped early would sit on the Pareto front"
            )
        return self

    @model_validator(mode="after")
    def _tuned_within_a_grid(self) -> Self:
        twice = ", ".join(name for name in self.tuned if name in self.grid)
        if self.tuned and not self.grid:
            raise ValueError("tuned needs a grid, for each combination of which it is done")
        if twice:
            raise ValueError(f"either of grid or tuned has {twice}")
        deciding = ", ".join(name for name in self.tuned if name in DECIDING)
        if deciding:
            raise ValueError(
                f"tuned: {deciding} decides what else applies, and belongs in the grid"
            )
        if self.tuning and not self.tuned:
            raise ValueError("tuning is the budget of what is tuned, and nothing is")
        return self

    @model_validator(mode="after")
    def _laid_out(self) -> Self:
        """Before anything goes through all the cells."""
        cells = math.prod(map(len, self.grid.values()))
        tried = math.prod(map(len, self.tuned.values())) if self.tuned else 0
        trials = cells * (tried + self.seeds)
        if self.grid and trials > _MOST_TRIALS:
            each = f"{self.seeds} seeds" + (f" and {tried:,} tuned values each" if tried else "")
            raise ValueError(
                f"grid: {cells:,} combinations with {each} are {trials:,} trials; accepted are "
                f"{_MOST_TRIALS:,}"
            )
        return self

    @model_validator(mode="after")
    def _combinations(self) -> Self:
        refusal = self._refusal({})
        if refusal:
            raise ValueError(refusal)
        spaces: dict[str, Mapping[str, Iterable[Any]]] = {
            "space": {name: _extremes(name, self.space[name]) for name in self.space},
            "grid": {**self.grid, **self.tuned},
        }
        for source, values in spaces.items():
            for params in _combined(values, self.learner):
                refusal = self._refusal(params)
                if refusal:
                    raise ValueError(f"{source}: {self._culprits(params, refusal)}: {refusal}")
        return self

    def _refusal(self, params: Mapping[str, Any]) -> str | None:
        """Why there is no such run."""
        try:
            self.run_config(params, seed=0)
        except InputError as error:
            return error.message.removeprefix(f"study {self.name}: ")
        return None

    def _culprits(self, params: Mapping[str, Any], refusal: str) -> str:
        """Those of `params` without which the refusal would not be."""
        culprits = dict(params)
        for name in params:
            others = {key: value for key, value in culprits.items() if key != name}
            if self._refusal(others) == refusal:
                culprits = others
        return " with ".join(f"{name}={value}" for name, value in culprits.items())

    def run_config(
        self, params: Mapping[str, Any], seed: int, stage: Stage = "explore"
    ) -> RunConfig:
        """The run of one point of the space, with the budget of a stage.

        Raises:
            InputError: its settings do not go together.
        """
        values = {
            "data": self.data.model_dump(),
            "learner": self.learner.model_dump() | dict(params),
            "training": self.budget(stage).model_dump(),
            "seed": seed,
        }
        return parse(RunConfig, values, f"study {self.name}")

    def budget(self, stage: Stage) -> TrainingConfig:
        """The budget of a trial of a stage."""
        return self.tuning if stage == "tune" and self.tuning else self.training

    def settings(self, stage: Stage, seed: int) -> dict[str, Any]:
        """What makes the trials of a stage comparable: all but their number."""
        fields = {"data", "learner"} | _STAGES[stage]
        training = self.budget(stage).model_dump(mode="json")
        return {**self.model_dump(mode="json", include=fields), "training": training, "seed": seed}

    def continuing(self, records: Iterable[Mapping[str, Any]]) -> "Study":
        """This study as it was meant when its stages began.

        A field that a record lacks was added later. Unless this study sets it, the field keeps the
        value that runs had before, so that a sweep of an older version can continue.

        Args:
            records: what `settings` gave when each stage began.
        """
        changes = {}
        for part in ("data", "learner", "training"):
            config = getattr(self, part)
            older = {
                name: value
                for name, value in values_before(type(config)).items()
                if name not in config.model_fields_set
                and any(name not in record[part] for record in records)
            }
            if older:
                changes[part] = config.model_copy(update=older)
        return self.changed(**changes) if changes else self

    def sweep_name(self, seed: int) -> str:
        """Names this study with this budget a trial and this seed: a folder and an MLflow run."""
        budget = self.training
        amount = f"{budget.iterations}steps" if budget.iterations else f"{budget.tasks}tasks"
        return f"{self.name}-{amount}-seed{seed}"

    def changed(self, **changes: object) -> "Study":
        """A copy with other values of some fields.

        Raises:
            InputError: they are not accepted.
        """
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return parse(Study, given | changes, f"study {self.name}")


def recorded_settings(record: Mapping[str, Any], source: str) -> dict[str, Any]:
    """What `Study.settings` gave an older version, with the fields that were added since.

    Raises:
        InputError: naming `source` and a value that is not accepted.
    """
    parts = {"data": DataConfig, "learner": LearnerConfig, "training": TrainingConfig}
    filled = {
        name: parse(model, completed(model, record[name]), source).model_dump(mode="json")
        for name, model in parts.items()
    }
    return {**record, **filled}


def read_study(path: Path) -> Study:
    """The study in a YAML file.

    Raises:
        InputError: the file cannot be read, or a key of it is not accepted.
    """
    if path.suffix == ".py":
        raise InputError(f"{path}: a study in Python, which is a program: python {path}")
    return parse(Study, read_yaml(path), str(path))


def _combined(
    values: Mapping[str, Iterable[Any]], base: LearnerConfig
) -> Iterable[Mapping[str, Any]]:
    """Combinations of fields that can exclude each other, less what does not apply."""
    names = [name for name in values if name in _COMBINED]
    products = itertools.product(*(values[name] for name in names))
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for product in itertools.islice(products, _COMBINATIONS):
        params = applicable(dict(zip(names, product, strict=True)), base)
        found.setdefault(tuple(params.items()), params)
    return found.values()


def _extremes(name: str, dimension: BaseDistribution) -> Iterable[Any]:
    """Values that are accepted only if all of the dimension's are."""
    if not isinstance(dimension, FloatDistribution | IntDistribution):
        return described(dimension)
    if name == "chunk":
        # Accepted or not by what divides it: what divides two neighbours divides all.
        low, high = int(dimension.low), int(dimension.high)
        return sorted({low, min(low + int(dimension.step or 1), high), high})
    return dimension.low, dimension.high
