"""The search space: which fields of the learner are active for a config, and how to draw params.

A space maps field names of `LearnerConfig` to Optuna distributions. *Params* map field names to
values. Some fields are conditional: they are active only for some values of their parent fields.
Params hold active fields only.
"""

import itertools
import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from memmeta.algorithms import ALGORITHMS, Algorithm
from memmeta.config import LearnerConfig
from memmeta.networks import BACKBONES, HEADS, is_own

Values = Mapping[str, Any]
"""Field names of the learner and their values."""

PARENT_FIELDS = ("algorithm", "backbone", "head", "inner_steps", "task_pool", "train_last")
"""Fields that conditional fields depend on. All but train_last are always active."""

_CONDITIONS: Mapping[str, Callable[[Values], bool]] = {
    "feature_reuse": lambda v: _algorithm(v).can_recompute_features,
    "first_order": lambda v: _algorithm(v).unrolls,
    "cg_steps": lambda v: not _algorithm(v).unrolls and _learns(v),
    "curvature": lambda v: not _algorithm(v).unrolls and not HEADS[v["head"]].linear and _learns(v),
    "outer_lr": lambda v: _learns(v),
    "schedule": lambda v: _learns(v),
    "weight_decay": lambda v: _learns(v),
    "task_batch": lambda v: _learns(v),
    "chunk": lambda v: not _algorithm(v).adapts_backbone,
    "filters": lambda v: BACKBONES[v["backbone"]].blocks > 0,
    "norm": lambda v: BACKBONES[v["backbone"]].blocks > 0,
    "precision": lambda v: (
        BACKBONES[v["backbone"]].blocks > 0 and not _algorithm(v).adapts_backbone
    ),
    "weights": lambda v: is_own(v["backbone"]),
    "train_last": lambda v: is_own(v["backbone"]),
    "input_size": lambda v: is_own(v["backbone"]),
    "head_width": lambda v: HEADS[v["head"]].has_width,
    "inner_lr": lambda v: v["inner_steps"] > 0,
    "warm_start": lambda v: v["task_pool"] is not None and not _algorithm(v).learns_initial_head,
}
"""The conditional fields, and when each of them is active."""


def _algorithm(values: Values) -> Algorithm:
    return ALGORITHMS[values["algorithm"]]


def _learns(values: Values) -> bool:
    """Whether training has anything to learn, see `LearnerConfig.learns_nothing`."""
    frozen = is_own(values["backbone"]) and values["train_last"] == 0
    return not frozen or _algorithm(values).learns_initial_head


def _order(name: str) -> int:
    """Sorts parents first, and train_last after its own parent."""
    if name not in PARENT_FIELDS:
        return 2
    return 1 if name == "train_last" else 0


def applies(name: str, values: Values) -> bool:
    """Whether a field is active.

    Args:
        name: the field.
        values: all fields of the learner.
    """
    condition = _CONDITIONS.get(name)
    return condition is None or condition(values)


def applicable(params: Values, base: LearnerConfig) -> dict[str, Any]:
    """Drop the inactive fields from `params`. `base` supplies the fields that it lacks."""
    return _assign(params, base, lambda name: params[name])


def suggest(
    trial: optuna.Trial, space: Mapping[str, BaseDistribution], base: LearnerConfig
) -> dict[str, Any]:
    """Ask an Optuna trial for a value of each active field, parents first.

    Args:
        trial: where the values come from.
        space: the search space.
        base: supplies the fields that the space lacks.
    """
    return _assign(space, base, lambda name: _suggest_value(trial, name, space[name]))


def at(
    point: Sequence[float], space: Mapping[str, BaseDistribution], base: LearnerConfig
) -> dict[str, Any]:
    """Map a point of the unit cube to params, without inactive fields.

    Equal lengths of a coordinate map to equal shares of a range, or of its logarithm. An integer
    on a log scale covers half a step to either side of it.

    Args:
        point: one coordinate in [0, 1) for each dimension, in the order of the space.
        space: the search space.
        base: supplies the fields that the space lacks.
    """
    coordinates = dict(zip(space, point, strict=True))
    return _assign(space, base, lambda name: _value_at(float(coordinates[name]), space[name]))


def params_key(params: Values) -> Hashable:
    """A key for equality of params that ignores their order and the last digits of floats."""
    return frozenset(
        (name, f"{value:.12g}" if isinstance(value, float) else value)
        for name, value in params.items()
    )


def all_params(
    space: Mapping[str, BaseDistribution], base: LearnerConfig, most: int
) -> list[dict[str, Any]] | None:
    """Enumerate the params of a finite space.

    Args:
        space: the search space.
        base: supplies the fields that the space lacks.
        most: maximum number of configs.

    Returns:
        The params of every config, or None if there are more than `most`.
    """
    sizes = {name: _size(distribution) for name, distribution in space.items()}
    parents = [name for name in space if name in PARENT_FIELDS]
    if _product(sizes[name] for name in parents) > most:
        return None
    fields = base.model_dump()
    configs: dict[Hashable, dict[str, Any]] = {}
    for combination in _combinations(space, parents):
        parent_values = {
            name: value
            for name, value in combination.items()
            if applies(name, fields | combination)
        }
        active = [
            name
            for name in space
            if name not in PARENT_FIELDS and applies(name, fields | parent_values)
        ]
        if len(configs) + _product(sizes[name] for name in active) > most:
            return None
        for values in _combinations(space, active):
            params = parent_values | values
            configs.setdefault(params_key(params), params)
    return list(configs.values())


def distributions(
    params: Values, space: Mapping[str, BaseDistribution]
) -> dict[str, BaseDistribution]:
    """The distributions of the fields in `params`."""
    return {name: space[name] for name in params}


def _assign(
    names: Iterable[str], base: LearnerConfig, choose: Callable[[str], Any]
) -> dict[str, Any]:
    """Choose a value for each active field, parents first."""
    fields = base.model_dump()
    params: dict[str, Any] = {}
    # The sort is stable, so the order of the names is kept otherwise.
    for name in sorted(names, key=_order):
        if applies(name, fields | params):
            params[name] = choose(name)
    return params


def _product(sizes: Iterable[float]) -> float:
    """Like `math.prod`, but does not overflow when a large integer meets infinity."""
    total: float = 1
    for size in sizes:
        total = total * size if size < math.inf else math.inf
    return total


def _combinations(
    space: Mapping[str, BaseDistribution], names: Sequence[str]
) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*(_values(space[name]) for name in names)):
        yield dict(zip(names, values, strict=True))


def _size(distribution: BaseDistribution) -> float:
    """Number of values of a dimension."""
    if isinstance(distribution, IntDistribution):
        return (distribution.high - distribution.low) // distribution.step + 1
    if isinstance(distribution, FloatDistribution):
        if distribution.step is not None:
            return round((distribution.high - distribution.low) / distribution.step) + 1
        return 1 if f"{distribution.low:.12g}" == f"{distribution.high:.12g}" else math.inf
    return len(_choices(distribution))


def _values(distribution: BaseDistribution) -> Sequence[Any]:
    """All values of a finite dimension, equal to those that `_value_at` returns."""
    if isinstance(distribution, IntDistribution):
        return range(distribution.low, distribution.high + 1, distribution.step)
    if isinstance(distribution, FloatDistribution):
        low, high, step = distribution.low, distribution.high, distribution.step or 0.0
        return [min(low + number * step, high) for number in range(int(_size(distribution)))]
    return _choices(distribution)


def _suggest_value(trial: optuna.Trial, name: str, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, FloatDistribution):
        return trial.suggest_float(
            name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
        )
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(
            name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
        )
    return trial.suggest_categorical(name, _choices(distribution))


def _value_at(coordinate: float, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, FloatDistribution):
        low, high, step = distribution.low, distribution.high, distribution.step
        if step is not None:
            number = _bin(coordinate, round((high - low) / step) + 1)
            return min(low + number * step, high)
        value = _interpolate(coordinate, low, high, distribution.log)
        return min(max(value, low), high)
    if isinstance(distribution, IntDistribution):
        first, last = distribution.low, distribution.high
        if distribution.log:
            nearest = round(_interpolate(coordinate, first - 0.5, last + 0.5, log=True))
            return min(max(nearest, first), last)
        values = range(first, last + 1, distribution.step)
        return values[_bin(coordinate, len(values))]
    choices = _choices(distribution)
    return choices[_bin(coordinate, len(choices))]


def _bin(coordinate: float, bins: int) -> int:
    """Index of the bin of [0, 1] that holds `coordinate`."""
    return min(int(coordinate * bins), bins - 1)


def _interpolate(coordinate: float, low: float, high: float, log: bool) -> float:
    if log:
        return math.exp(math.log(low) + coordinate * (math.log(high) - math.log(low)))
    return low + coordinate * (high - low)


def _choices(distribution: BaseDistribution) -> tuple[Any, ...]:
    assert isinstance(distribution, CategoricalDistribution)
    return distribution.choices
