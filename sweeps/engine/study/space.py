"""Where a study searches: fields of the learner, and for which configs each of them matters."""

import functools
import itertools
import math
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Generic, TypeVar, get_args

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import BeforeValidator, PlainSerializer, PlainValidator, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from memmeta.config import Config, LearnerConfig, parse
from memmeta.errors import InputError, shown

Values = Mapping[str, Any]
"""Fields of the learner and their values."""

DECIDING = ("algorithm", "backbone", "head", "inner_steps", "task_pool")
"""Fields that decide whether others apply. All of them do always."""

_RULES: Mapping[str, Callable[[Values], bool]] = {
    "kind": lambda v: v["algorithm"] in ("itd_bio", "anil"),
    "first_order": lambda v: v["algorithm"] != "memory_reduced",
    "cg_steps": lambda v: v["algorithm"] == "memory_reduced",
    "curvature": lambda v: v["algorithm"] == "memory_reduced" and v["head"] != "linear",
    "chunk": lambda v: v["algorithm"] != "maml",
    "filters": lambda v: v["backbone"] != "mlp",
    "norm": lambda v: v["backbone"] != "mlp",
    "precision": lambda v: v["algorithm"] != "maml" and v["backbone"] != "mlp",
    "head_width": lambda v: v["head"] == "mlp",
    "inner_lr": lambda v: v["inner_steps"] > 0,
    "warm_start": lambda v: (
        v["task_pool"] is not None and v["algorithm"] in ("memory_reduced", "itd_bio")
    ),
}
"""Fields that have no effect for some configs, and for which they have one."""


def applies(name: str, values: Values) -> bool:
    """Whether the field `name` has an effect, given the other fields of the learner."""
    rule = _RULES.get(name)
    return rule is None or rule(values)


def applicable(params: Values, base: LearnerConfig) -> dict[str, Any]:
    """Those of `params` that have an effect, given the others and `base`."""
    return _collect(params, base, lambda name: params[name])


def suggest(
    trial: optuna.Trial, space: Mapping[str, BaseDistribution], base: LearnerConfig
) -> dict[str, Any]:
    """Ask `trial` for a value of each dimension that applies, given `base` and those before."""
    return _collect(space, base, lambda name: _ask(trial, name, space[name]))


def at(
    point: Sequence[float], space: Mapping[str, BaseDistribution], base: LearnerConfig
) -> dict[str, Any]:
    """The params at a point of the unit cube, less those that do not apply.

    Equal lengths stand for equal shares of a range, or of its logarithm; an integer takes up half
    a step to either side of it.

    Args:
        point: one coordinate in [0, 1) for each dimension, in the order of the space.
        space: fields of the learner and where each is searched.
        base: holds what the space leaves out.
    """
    share = dict(zip(space, point, strict=True))
    return _collect(space, base, lambda name: _at(float(share[name]), space[name]))


def point(params: Values) -> Hashable:
    """Equal for equal params, whatever their order and the last digits of floats."""
    return frozenset(
        (name, f"{value:.12g}" if isinstance(value, float) else value)
        for name, value in params.items()
    )


def all_points(
    space: Mapping[str, BaseDistribution], base: LearnerConfig, most: int
) -> list[dict[str, Any]] | None:
    """The params of every config of a finite space; None if there are more than `most`.

    Args:
        space: fields of the learner and where each is searched.
        base: holds what the space leaves out.
        most: configs that are listed.
    """
    sizes = {name: _size(dimension) for name, dimension in space.items()}
    deciding = [name for name in space if name in DECIDING]
    if _product(sizes[name] for name in deciding) > most:
        return None
    fields = base.model_dump()
    found: dict[Hashable, dict[str, Any]] = {}
    for chosen in _combinations(space, deciding):
        others = [n for n in space if n not in DECIDING and applies(n, fields | chosen)]
        if len(found) + _product(sizes[name] for name in others) > most:
            return None
        for rest in _combinations(space, others):
            found.setdefault(point(chosen | rest), chosen | rest)
    return list(found.values())


def _product(sizes: Iterable[float]) -> float:
    """As `math.prod`, of any integers."""
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
    """How many values a dimension has."""
    if isinstance(distribution, IntDistribution):
        return (distribution.high - distribution.low) // distribution.step + 1
    if isinstance(distribution, FloatDistribution):
        if distribution.step is not None:
            return round((distribution.high - distribution.low) / distribution.step) + 1
        return 1 if f"{distribution.low:.12g}" == f"{distribution.high:.12g}" else math.inf
    return len(_choices(distribution))


def _values(distribution: BaseDistribution) -> Sequence[Any]:
    """All values of a dimension, as `_at` gives them."""
    if isinstance(distribution, IntDistribution):
        return range(distribution.low, distribution.high + 1, distribution.step)
    if isinstance(distribution, FloatDistribution):
        low, high, step = distribution.low, distribution.high, distribution.step or 0.0
        return [min(low + number * step, high) for number in range(int(_size(distribution)))]
    return _choices(distribution)


def distributions(
    params: Values, space: Mapping[str, BaseDistribution]
) -> dict[str, BaseDistribution]:
    """The dimensions that `params` are of."""
    return {name: space[name] for name in params}


def _collect(
    names: Iterable[str], base: LearnerConfig, choose: Callable[[str], Any]
) -> dict[str, Any]:
    fields = base.model_dump()
    params: dict[str, Any] = {}
    # What others depend on is settled before them; the sort is stable.
    for name in sorted(names, key=lambda name: name not in DECIDING):
        if applies(name, fields | params):
            params[name] = choose(name)
    return params


def _ask(trial: optuna.Trial, name: str, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, FloatDistribution):
        return trial.suggest_float(
            name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
        )
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(
            name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
        )
    return trial.suggest_categorical(name, _choices(distribution))


def _at(share: float, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, FloatDistribution):
        low, high, step = distribution.low, distribution.high, distribution.step
        if step is not None:
            place = _part(share, round((high - low) / step) + 1)
            return min(low + place * step, high)
        value = _between(share, low, high, distribution.log)
        return min(max(value, low), high)
    if isinstance(distribution, IntDistribution):
        first, last = distribution.low, distribution.high
        if distribution.log:
            nearest = round(_between(share, first - 0.5, last + 0.5, log=True))
            return min(max(nearest, first), last)
        values = range(first, last + 1, distribution.step)
        return values[_part(share, len(values))]
    choices = _choices(distribution)
    return choices[_part(share, len(choices))]


def _part(share: float, parts: int) -> int:
    return min(int(share * parts), parts - 1)


def _between(share: float, low: float, high: float, log: bool) -> float:
    if log:
        return math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
    return low + share * (high - low)


def _choices(distribution: BaseDistribution) -> tuple[Any, ...]:
    assert isinstance(distribution, CategoricalDistribution)
    return distribution.choices


_Kind = type[FloatDistribution] | type[IntDistribution]

_RANGES: Mapping[type, _Kind] = {int: IntDistribution, float: FloatDistribution}

T = TypeVar("T", int, float)


class _Range(Config, Generic[T]):
    """A range as YAML has it."""

    low: T
    high: T
    log: bool = False
    step: T | None = None


def choices(name: str, values: Iterable[object]) -> list[Any]:
    """Values of the learner's field `name`, as it holds them.

    Raises:
        ValueError: there is no such field, it does not accept a value, or one is there twice.
    """
    accepted = [_accepted(name, value) for value in values]
    if not accepted:
        raise ValueError("at least one value is needed")
    seen = set()
    for value in accepted:
        if value in seen:
            raise ValueError(f"{shown(value)} is there twice")
        seen.add(value)
    return accepted


def dimension(name: str, value: object) -> BaseDistribution:
    """Where the learner's field `name` is searched.

    Args:
        name: the field.
        value: a distribution, or as YAML has it: `{low, high}` with `log` or `step`, or a list of
            choices.

    Raises:
        ValueError: there is no such field, or it does not accept what is in `value`.
    """
    if isinstance(value, CategoricalDistribution):
        value = value.choices
    if isinstance(value, list | tuple):
        return CategoricalDistribution(choices(name, value))
    number = _number(name)
    if number is None:
        raise ValueError("a list of choices is accepted")
    kind = _RANGES[number]
    if isinstance(value, dict):
        try:
            value = _made(parse(_Range[number], value, "range"), kind)  # type: ignore[valid-type]
        except InputError as error:
            raise ValueError(error.message) from None
    if not isinstance(value, kind):
        raise ValueError(
            f"a range with low and high, a list of choices, {kind.__name__} or "
            "CategoricalDistribution is accepted"
        )
    for end in (value.low, value.high):
        _accepted(name, end)
    return value


_LARGEST = 2**53
"""Integers beyond it are no longer exact as floats, in which Optuna keeps them."""

_MOST_VALUES = 10**9
"""Values of a range with a step."""


def _made(given: _Range[Any], kind: _Kind) -> FloatDistribution | IntDistribution:
    # Before Optuna, which fails on what its decimals cannot hold.
    if given.step and not (given.high - given.low) / given.step < _MOST_VALUES:
        raise ValueError(f"step {shown(given.step)} makes more than {_MOST_VALUES:,} values")
    if kind is IntDistribution and max(abs(given.low), abs(given.high)) > _LARGEST:
        raise ValueError(f"integers up to {_LARGEST} are accepted")
    with warnings.catch_warnings():
        # Of a high that no step reaches, which Optuna lowers.
        warnings.simplefilter("ignore", UserWarning)
        made = kind(**given.model_dump(exclude_none=True))
    if made.high != given.high:
        raise ValueError(f"no step of {given.step} reaches high {given.high}; {made.high} does")
    return made


def described(distribution: BaseDistribution) -> dict[str, Any] | list[Any]:
    """A dimension as YAML has it: what `dimension` reads."""
    if not isinstance(distribution, FloatDistribution | IntDistribution):
        return list(_choices(distribution))
    values: dict[str, Any] = {"low": distribution.low, "high": distribution.high}
    if distribution.log:
        values["log"] = True
    elif distribution.step is not None:
        values["step"] = distribution.step
    return values


def _accepted(name: str, value: object) -> Any:
    """`value` as the learner's field holds it."""
    try:
        return _adapter(name).validate_python(value)
    except ValidationError as error:
        message = error.errors()[0]["msg"]
        raise ValueError(f"{message[0].lower()}{message[1:]}, got {shown(value)}") from None


@functools.cache
def _adapter(name: str) -> TypeAdapter[Any]:
    field = _field(name)
    return TypeAdapter(Annotated[field.annotation, field])  # type: ignore[arg-type]


def _number(name: str) -> type[int] | type[float] | None:
    """Whether the learner's field is a number, and of which kind."""
    annotation = _field(name).annotation
    types = get_args(annotation) or (annotation,)
    return int if int in types else float if float in types else None


def _field(name: str) -> FieldInfo:
    field = LearnerConfig.model_fields.get(name)
    if field is None:
        raise ValueError(f"unknown key, accepted are {', '.join(LearnerConfig.model_fields)}")
    return field


def _named(values: object) -> object:
    """Tells each item its name: what is accepted depends on it."""
    if isinstance(values, Mapping):
        return {name: {name: value} for name, value in values.items()}
    return values


def _as_dimension(item: dict[str, object]) -> BaseDistribution:
    ((name, value),) = item.items()
    return dimension(name, value)


def _as_values(item: dict[str, object]) -> list[Any]:
    ((name, value),) = item.items()
    if not isinstance(value, list | tuple):
        raise ValueError(f"a list of values is accepted, got {shown(value)}")
    return choices(name, value)


Dimension = Annotated[BaseDistribution, PlainValidator(_as_dimension), PlainSerializer(described)]
"""A dimension of a `Space`."""

Space = Annotated[dict[str, Dimension], BeforeValidator(_named)]
"""Fields of the learner and where each is searched, in Python or as YAML has it."""

Grid = Annotated[
    dict[str, Annotated[list[Any], PlainValidator(_as_values)]], BeforeValidator(_named)
]
"""Fields of the learner and their values."""
