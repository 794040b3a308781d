"""A study: a data set, a learner, a search space or grid, and a budget."""

import itertools
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from pydantic import (
    Field,
    PlainValidator,
    StrictBool,
    ValidationInfo,
    field_validator,
    model_validator,
)

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
from memmeta.errors import FailedError, InputError
from memmeta.registry import search_also
from memmeta.settings.arguments import AnyPath, checked
from memmeta.system.plain_yaml import read_yaml
from memmeta.system.units import AnySize, parse_size
from sweeps.engine.study.dimension import Grid, Space, described, renewed_values
from sweeps.engine.study.outcome import Stage
from sweeps.engine.study.samplers import SamplerSpec, checked_spec
from sweeps.engine.study.space import PARENT_FIELDS, applicable

if TYPE_CHECKING:
    from sweeps.engine.ledger.schedule import Choice
    from sweeps.result import Result

SPACE: Mapping[str, BaseDistribution] = {
    # Standardised features bound the head's Hessian by 2, so some tasks oscillate above 1.
    "inner_lr": FloatDistribution(0.03, 3.0, log=True),
    "outer_lr": FloatDistribution(1e-4, 1e-2, log=True),
    "inner_steps": IntDistribution(1, 40, log=True),
    "cg_steps": IntDistribution(1, 20, log=True),
    "task_batch": IntDistribution(2, 32, log=True),
    "ridge": FloatDistribution(1e-4, 1.0, log=True),
}
"""The default search space: the hyperparameters that the paper keeps fixed."""

_STAGE_FIELDS: Mapping[Stage, set[str]] = {
    "explore": {"space"},
    "search": {"space", "objective", "memory_limit"},
    "confirm": {"space", "objective", "memory_limit"},
    "tune": {"tuned"},
    "grid": {"tuned", "tuning"},
}
"""Fields of a study that determine the trials of a stage, besides data, learner and training."""

_INTERACTING = (
    "algorithm", "feature_reuse", "first_order", "backbone", "norm", "head", "chunk", "task_batch",
    "task_pool", "warm_start", "train_last",
)  # fmt: skip
"""Fields of the learner some of whose values exclude values of other fields."""

_MOST_TRIALS = 100_000
"""Maximum number of trials of a sweep. The design, the ledger and the ranking keep all of them in
memory."""

_MOST_COMBINATIONS = 20_000
"""Maximum number of combinations that are validated when a study is made. An invalid combination
beyond it fails when its trial starts."""


class Study(Config):
    """The definition of a study. It is written in Python or in YAML.

    Configs may be given as dicts.

    Raises:
        pydantic.ValidationError: a value is not accepted.

    Examples:
        >>> from sweeps import Study, choice, loguniform
        >>> study = Study(
        ...     name="mine",
        ...     data={"name": "glyphs", "shots": 1},
        ...     learner={"filters": 16},
        ...     training={"tasks": 600, "evaluations": 2},
        ...     space={"inner_lr": loguniform(0.03, 3), "norm": choice(["batch", "group"])},
        ... )
        >>> study.sweep_name(seed=0)
        'mine-600tasks-seed0'
        >>> result = study.run(trials=16)  # doctest: +SKIP
    """

    name: str
    """Name of the study in MLflow and for the commands on results."""
    data: DataConfig
    """The data set and the shape of its episodes."""
    learner: LearnerConfig = LearnerConfig()
    """Supplies the fields that the space or the grid lacks."""
    training: TrainingConfig
    """Training budget of a trial."""
    trials: int = Field(32, ge=1, le=_MOST_TRIALS)
    """Total number of trials."""
    space: Space = Field(default_factory=lambda: dict(SPACE))
    """Fields of the learner and their distributions."""
    grid: Grid = Field(default_factory=dict)
    """Fields of the learner and their values. Stage grid runs every combination."""
    tuned: Grid = Field(default_factory=dict)
    """Fields that are tuned for each combination of the grid. The seeds use the best values."""
    tuning: TrainingConfig | None = None
    """Training budget of a trial of stage tune; None: the same as `training`."""
    seeds: int = Field(3, ge=1, le=1000)
    """Number of training seeds for each config in stages confirm and grid."""
    evaluate_on: tuple[str, ...] = ()
    """Other data sets of images on whose test tasks stage confirm scores its models too."""
    objective: tuple[str, ...] = Field(None, validate_default=True)
    """The objective of the search: the data set's metric, alone or together with peak memory."""
    memory_limit: int | None = None
    """Maximum peak memory of a feasible trial, in bytes."""
    sampler: Annotated[SamplerSpec, PlainValidator(checked_spec)] = "tpe"
    """The sampler that proposes the trials of stage search: a name in `SAMPLERS`, an import path
    (`optuna.samplers.CmaEsSampler`) or `optunahub:NAME`; or a dict with `name` and arguments."""
    asha: bool = False
    """Whether stage search stops trials early, by asynchronous successive halving (ASHA)."""

    @field_validator("name")
    @classmethod
    def _is_a_folder_name(cls, name: str) -> str:
        if not re.fullmatch(r"[\w-]+", name):
            raise ValueError("letters, digits, _ and - are accepted")
        return name

    @field_validator("objective", mode="before")
    @classmethod
    def _fits_the_data(cls, objective: object, info: ValidationInfo) -> object:
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

    @field_validator("evaluate_on")
    @classmethod
    def _are_other_images(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if "data" not in info.data:
            return names
        data: DataConfig = info.data["data"]
        for name in names:
            if name == data.name or names.count(name) > 1:
                raise ValueError(
                    f"{name} is scored once: give other data sets than data, once each"
                )
            if len(data.source.input_shape) != 3:
                raise ValueError(
                    f"models of {data.name} take points, and only images are converted"
                )
            try:
                other = parse(DataConfig, {"name": name, "ways": data.ways}, name)
            except InputError as error:
                raise ValueError(error.message) from None
            if len(other.source.input_shape) != 3:
                raise ValueError(f"{name} has points: data sets of images are accepted")
        return names

    @field_validator("memory_limit", mode="before")
    @classmethod
    def _in_bytes(cls, value: object) -> int | None:
        return None if value is None else parse_size(value)

    @model_validator(mode="after")
    def _check_asha(self) -> Self:
        if self.asha and len(self.objective) > 1:
            raise ValueError(
                "asha goes with one objective: with memory as a second one, trials that were "
                "stopped early would be on the Pareto front"
            )
        return self

    @model_validator(mode="after")
    def _check_tuned(self) -> Self:
        twice = ", ".join(name for name in self.tuned if name in self.grid)
        if self.tuned and not self.grid:
            raise ValueError("tuned needs a grid: its fields are tuned for each combination")
        if twice:
            raise ValueError(f"{twice}: in both grid and tuned")
        parents = ", ".join(name for name in self.tuned if name in PARENT_FIELDS)
        if parents:
            raise ValueError(f"tuned: other fields depend on {parents}, which belongs in the grid")
        if self.tuning and not self.tuned:
            raise ValueError("tuning is the budget of tuned fields, and there are none")
        return self

    @model_validator(mode="after")
    def _check_grid_size(self) -> Self:
        """Limit the size of the grid, before other validators enumerate its cells."""
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
    def _check_combinations(self) -> Self:
        refusal = self._refusal({})
        if refusal:
            raise ValueError(refusal)
        spaces: dict[str, Mapping[str, Iterable[Any]]] = {
            "space": {name: _extremes(name, self.space[name]) for name in self.space},
            "grid": {**self.grid, **self.tuned},
        }
        for source, values in spaces.items():
            for params in _interacting_params(values, self.learner):
                refusal = self._refusal(params)
                if refusal:
                    raise ValueError(f"{source}: {self._cause(params, refusal)}: {refusal}")
        return self

    def _refusal(self, params: Mapping[str, Any]) -> str | None:
        """Why a run with these params is invalid; None if it is valid."""
        try:
            self.run_config(params, seed=0)
        except InputError as error:
            return error.message.removeprefix(f"study {self.name}: ")
        return None

    def _cause(self, params: Mapping[str, Any], refusal: str) -> str:
        """The smallest subset of `params` that is refused for the same reason, as text."""
        cause = dict(params)
        for name in params:
            others = {key: value for key, value in cause.items() if key != name}
            if self._refusal(others) == refusal:
                cause = others
        return " with ".join(f"{name}={value}" for name, value in cause.items())

    def run_config(
        self, params: Mapping[str, Any], seed: int, stage: Stage = "explore"
    ) -> RunConfig:
        """The config of a run.

        Args:
            params: replace fields of the learner.
            seed: training seed.
            stage: determines the budget.

        Raises:
            InputError: the settings contradict each other.
        """
        values = {
            "data": self.data.model_dump(),
            "learner": self.learner.model_dump() | dict(params),
            "training": self.budget(stage).model_dump(),
            "seed": seed,
        }
        return parse(RunConfig, values, f"study {self.name}")

    def budget(self, stage: Stage) -> TrainingConfig:
        """Training budget of a trial of `stage`."""
        return self.tuning if stage == "tune" and self.tuning else self.training

    def settings(self, stage: Stage, seed: int) -> dict[str, Any]:
        """All settings that trials of a stage must share to be comparable, as JSON values."""
        fields = {"data", "learner"} | _STAGE_FIELDS[stage]
        training = self.budget(stage).model_dump(mode="json")
        return {**self.model_dump(mode="json", include=fields), "training": training, "seed": seed}

    def continuing(self, records: Iterable[Mapping[str, Any]]) -> "Study":
        """This study, changed so that it can continue a sweep of an older version.

        A field that a record lacks was added later. Unless this study sets the field, it gets the
        value that matches the behaviour before.

        Args:
            records: `settings` of each stage, as recorded when it started.
        """
        changes = {}
        for section in ("data", "learner", "training"):
            config = getattr(self, section)
            older = {
                name: value
                for name, value in values_before(type(config)).items()
                if name not in config.model_fields_set
                and any(name not in record[section] for record in records)
            }
            if older:
                changes[section] = config.model_copy(update=older)
        return self.changed(**changes) if changes else self

    @checked
    def run(
        self,
        *,
        trials: int | None = None,
        stage: "Choice | None" = None,
        seed: int = 0,
        fresh: bool = False,
        storage: AnyPath = "runs",
        data_root: AnyPath = "data",
        cache: AnyPath | None = None,
        ledger: str | None = None,
        tracking_uri: str | None = None,
        experiment: str | None = None,
        max_concurrent: int | None = None,
        cpus_per_trial: int = 1,
        memory_budget: AnySize | None = None,
        progress: StrictBool = True,
    ) -> "Result":
        """Run the study, or continue it: only trials that are missing run.

        A study of the same name, budget per trial and seed continues the same sweep. It runs on the
        Ray that the program has started with `ray.init`, else on the cluster at `RAY_ADDRESS`, else
        on Ray processes of its own, which end with it. One sweep at a time can run in a process.

        Ctrl-C, SIGTERM and SIGHUP make the running trials save themselves, and stop the sweep. In a
        thread other than the main thread, signals do not stop it.

        Args:
            trials: total number of trials; None: `Study.trials`.
            stage: the stages to run: explore, search, confirm, grid, or all, which is the first
                three; None: grid if the study has a grid, else all.
            seed: seed of the design, the sampler, and the trials of explore and search.
            fresh: whether to start a new version of the sweep.
            storage: folder of all sweeps.
            data_root: folder with the data sets.
            cache: folder for prepared data; None: `cache` in the data root.
            ledger: database URL for the record of the sweep; None: a journal in `storage`.
            tracking_uri: MLflow store; None: the environment variable MLFLOW_TRACKING_URI, else
                `mlflow.db` in `storage`.
            experiment: MLflow experiment; None: the study's name.
            max_concurrent: maximum number of trials that run at once; None: no limit besides
                resources.
            cpus_per_trial: CPUs and threads of a trial.
            memory_budget: maximum GPU memory (without GPUs: RAM) of a trial, in bytes or as text
                such as "2GiB". Larger trials are not started. None: the whole device.
            progress: whether to print the progress and the best configs.

        Raises:
            InputError: an argument is not accepted, the data cannot be used, or the sweep cannot
                continue.
            FailedError: a bug, a lost cluster or an error of the storage stopped the sweep.
            KeyboardInterrupt: a signal stopped the sweep. Run it again to continue.
        """
        # Ray and PyTorch take seconds to import, and nothing else of a study needs them.
        from rich.console import Console

        from memmeta.system.stopping import heeding_signals
        from sweeps.engine.options import options_for
        from sweeps.engine.run import sweep
        from sweeps.result import load

        study = self if trials is None else self.changed(trials=trials)
        options = options_for(
            study,
            stage=stage,
            seed=seed,
            fresh=fresh,
            storage=storage,
            data_root=data_root,
            cache=cache,
            ledger=ledger,
            tracking_uri=tracking_uri,
            experiment=experiment,
            max_concurrent=max_concurrent,
            cpus_per_trial=cpus_per_trial,
            memory_budget=memory_budget,
        )
        if trials is not None and options.stage == "grid":
            raise InputError("the grid determines the number of trials: leave out trials")
        console = Console(quiet=not progress, highlight=False)
        with heeding_signals():
            ended = sweep(console, study, options)
        if not ended.finished:
            name = study.sweep_name(seed)
            raise FailedError(
                f"{name}: a trial lost its worker too often; run the study again to continue"
            )
        assert ended.run_id is not None
        return load(ended.run_id, tracking_uri=options.tracking_uri)

    def sweep_name(self, seed: int) -> str:
        """The name of a sweep's folder and MLflow run: study, budget of a trial, and seed."""
        budget = self.training
        amount = f"{budget.iterations}steps" if budget.iterations else f"{budget.tasks}tasks"
        return f"{self.name}-{amount}-seed{seed}"

    def changed(self, **changes: object) -> "Study":
        """A validated copy with other values of some fields.

        Raises:
            InputError: a value is not accepted.
        """
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return parse(Study, given | changes, f"study {self.name}")


def recorded_settings(record: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Fill in the fields that were added since settings were recorded.

    Args:
        record: `Study.settings`, perhaps of an older version.
        source: names the record in error messages.

    Raises:
        InputError: a recorded value is not accepted.
    """
    sections: dict[str, type[Config]] = {
        "data": DataConfig,
        "learner": LearnerConfig,
        "training": TrainingConfig,
    }
    completed_sections = {
        name: parse(model, completed(model, record[name]), source).model_dump(mode="json")
        for name, model in sections.items()
    }
    spaces = {name: renewed_values(record[name]) for name in ("space", "tuned") if name in record}
    return {**record, **completed_sections, **spaces}


def read_study(path: Path) -> Study:
    """Read a study from a YAML file. It may name modules in the folder of the file.

    Raises:
        InputError: the file cannot be read, or is not a valid study.
    """
    if path.suffix == ".py":
        raise InputError(f"{path}: this study is a Python program; run it with: python {path}")
    search_also(path.parent)
    return parse(Study, read_yaml(path), str(path), path.parent)


def _interacting_params(
    values: Mapping[str, Iterable[Any]], base: LearnerConfig
) -> Iterable[Mapping[str, Any]]:
    """Combinations of the interacting fields, without inactive fields."""
    names = [name for name in values if name in _INTERACTING]
    products = itertools.product(*(values[name] for name in names))
    combinations: dict[tuple[Any, ...], dict[str, Any]] = {}
    for product in itertools.islice(products, _MOST_COMBINATIONS):
        params = applicable(dict(zip(names, product, strict=True)), base)
        combinations.setdefault(tuple(params.items()), params)
    return combinations.values()


def _extremes(name: str, dimension: BaseDistribution) -> Iterable[Any]:
    """Values of a dimension. If these are valid, all of its values are."""
    if not isinstance(dimension, FloatDistribution | IntDistribution):
        return described(dimension)
    if name == "chunk":
        # Whether a chunk is valid depends on its divisors. If it holds for two neighbours, it holds
        # for all values of the range.
        low, high = int(dimension.low), int(dimension.high)
        return sorted({low, min(low + int(dimension.step or 1), high), high})
    return dimension.low, dimension.high
