"""Dimensions of a search space and values of a grid: how they are read and checked."""

import functools
import warnings
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Generic, TypeVar, get_args

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import BeforeValidator, PlainSerializer, PlainValidator, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from memmeta.config import Config, LearnerConfig, parse, renamed
from memmeta.errors import InputError, did_you_mean, shown

_RangeType = type[FloatDistribution] | type[IntDistribution]

_RANGE_TYPES: Mapping[type, _RangeType] = {int: IntDistribution, float: FloatDistribution}

_LARGEST = 2**53
"""Largest integer that is exact as a float. Optuna stores parameters as floats."""

_MOST_VALUES = 10**9
"""Maximum number of values of a range with a step."""

T = TypeVar("T", int, float)


class _Range(Config, Generic[T]):
    """A range as it is written in YAML."""

    low: T
    high: T
    log: bool = False
    step: T | None = None


def choices(name: str, values: Iterable[object]) -> list[Any]:
    """Check values of a learner's field and convert them to its type.

    Raises:
        ValueError: the field does not exist, a value is not accepted or repeated, or there is none.
    """
    accepted = [_accepted(name, value) for value in values]
    if not accepted:
        raise ValueError("at least one value is needed")
    seen = set()
    for value in accepted:
        if isinstance(value, dict):
            raise ValueError("cannot be searched: Optuna has no choices of this type")
        if value in seen:
            raise ValueError(f"{shown(value)} is repeated")
        seen.add(value)
    return accepted


def dimension(name: str, value: object) -> BaseDistribution:
    """Make the dimension of a learner's field.

    Args:
        name: the field.
        value: a distribution, or its YAML form: `{low, high}` with optional `log` or `step`, or a
            list of choices.

    Raises:
        ValueError: the field does not exist, or does not accept `value`.
    """
    if isinstance(value, CategoricalDistribution):
        value = value.choices
    if isinstance(value, list | tuple):
        return CategoricalDistribution(choices(name, value))
    number_type = _number_type(name)
    if number_type is None:
        raise ValueError("a list of choices is accepted")
    range_type = _RANGE_TYPES[number_type]
    if isinstance(value, dict):
        try:
            given = parse(_Range[number_type], value, "range")  # type: ignore[valid-type]
            value = _distribution(given, range_type)
        except InputError as error:
            raise ValueError(error.message) from None
    if not isinstance(value, range_type):
        raise ValueError(
            f"a range with low and high, a list of choices, {range_type.__name__} or "
            "CategoricalDistribution is accepted"
        )
    for end in (value.low, value.high):
        _accepted(name, end)
    return value


def _distribution(
    given: _Range[Any], range_type: _RangeType
) -> FloatDistribution | IntDistribution:
    # These two are checked here because Optuna fails on them with other errors.
    if given.step and not (given.high - given.low) / given.step < _MOST_VALUES:
        raise ValueError(f"step {shown(given.step)} makes more than {_MOST_VALUES:,} values")
    if range_type is IntDistribution and max(abs(given.low), abs(given.high)) > _LARGEST:
        raise ValueError(f"integers up to {_LARGEST} are accepted")
    with warnings.catch_warnings():
        # If the upper bound is not a multiple of the step, Optuna lowers it and warns.
        warnings.simplefilter("ignore", UserWarning)
        distribution = range_type(**given.model_dump(exclude_none=True))
    if distribution.high != given.high:
        raise ValueError(
            f"no step of {given.step} reaches high {given.high}; {distribution.high} does"
        )
    return distribution


def described(distribution: BaseDistribution) -> dict[str, Any] | list[Any]:
    """The YAML form of a dimension: the inverse of `dimension`."""
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    values: dict[str, Any] = {"low": distribution.low, "high": distribution.high}
    if distribution.log:
        values["log"] = True
    elif distribution.step is not None:
        values["step"] = distribution.step
    return values


def _accepted(name: str, value: object) -> Any:
    """Convert `value` to the type of the learner's field."""
    try:
        return _adapter(name).validate_python(value)
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ValueError(f"{message[0].lower()}{message[1:]}, got {shown(value)}") from None


@functools.cache
def _adapter(name: str) -> TypeAdapter[Any]:
    field = _field(name)
    return TypeAdapter(Annotated[field.annotation, field])  # type: ignore[arg-type]


def _number_type(name: str) -> type[int] | type[float] | None:
    """The type of a numeric field; None for other fields."""
    annotation = _field(name).annotation
    types = get_args(annotation) or (annotation,)
    return int if int in types else float if float in types else None


def _field(name: str) -> FieldInfo:
    field = LearnerConfig.model_fields.get(name)
    if field is None:
        names = LearnerConfig.model_fields
        raise ValueError(f"unknown key{did_you_mean(name, names)}, accepted are {', '.join(names)}")
    return field


def renewed_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Replace old names of the learner's fields, and the old values in lists of choices.

    Raises:
        ValueError: a field has values under both names.
    """
    old_names = renamed(LearnerConfig)
    new: dict[str, Any] = {}
    for key, value in values.items():
        if key in old_names:
            name, mark = old_names[key]
            mark.check_once(name, values)
            is_list = isinstance(value, list | tuple)
            new[name] = [mark.new_value(item) for item in value] if is_list else value
        else:
            new[key] = value
    return new


def _with_names(values: object) -> object:
    """Pass each item its field's name, since validation depends on the field."""
    if isinstance(values, Mapping):
        return {name: {name: value} for name, value in renewed_values(values).items()}
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

Space = Annotated[dict[str, Dimension], BeforeValidator(_with_names)]
"""Fields of the learner and their distributions, in Python or in YAML form."""

Grid = Annotated[
    dict[str, Annotated[list[Any], PlainValidator(_as_values)]], BeforeValidator(_with_names)
]
"""Fields of the learner and the values to try for each."""
