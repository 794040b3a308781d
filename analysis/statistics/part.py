"""A part of the space: where a response is looked at without what lies beyond a cliff.

The points of a space-filling design that lie in a part of the space fill that part.
"""

from collections.abc import Iterable, Mapping

from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from analysis.records.trials import Trial
from analysis.statistics.encoding import Space, params
from memmeta.errors import InputError, shown

Within = Mapping[str, tuple[float, float]]
"""Dimensions and the range of each, ends included, to which the space is narrowed."""


def parse_within(texts: Iterable[str]) -> Within:
    """Ranges from texts like `inner_lr=0.03,1`.

    Raises:
        InputError: one is not of this form, or two are of one dimension.
    """
    within: dict[str, tuple[float, float]] = {}
    for text in texts:
        name, _, ends = text.partition("=")
        try:
            low, high = map(float, ends.split(","))
        except ValueError:
            raise InputError(
                f"--within {shown(text)}: NAME=LOW,HIGH is accepted, such as inner_lr=0.03,1"
            ) from None
        if name in within:
            raise InputError(f"--within {shown(text)}: {name} is there twice")
        within[name] = low, high
    return within


def narrowed(space: Space, within: Within) -> dict[str, BaseDistribution]:
    """The space with narrower ranges.

    Raises:
        InputError: a range is not one of the space, or not a part of it.
    """
    unknown = next((name for name in within if name not in space), None)
    if unknown is not None:
        raise InputError(f"--within {unknown}: the space has {', '.join(space) or 'no dimensions'}")
    return {
        name: _narrower(name, dimension, within[name]) if name in within else dimension
        for name, dimension in space.items()
    }


def inside(trials: Iterable[Trial], space: Space, within: Within) -> tuple[Trial, ...]:
    """The trials in the part; one to which a dimension does not apply is not outside for it."""
    found = []
    for trial in trials:
        own = params(trial, space)
        if all(low <= own.get(name, low) <= high for name, (low, high) in within.items()):
            found.append(trial)
    return tuple(found)


def _narrower(
    name: str, dimension: BaseDistribution, ends: tuple[float, float]
) -> BaseDistribution:
    low, high = ends
    without_steps = {FloatDistribution: None, IntDistribution: 1}
    if (
        not isinstance(dimension, FloatDistribution | IntDistribution)
        or dimension.step != without_steps[type(dimension)]
    ):
        raise InputError(f"--within {name}: it has choices or steps, and no range to be narrowed")
    if not dimension.low <= low < high <= dimension.high:
        raise InputError(
            f"--within {name}={low:g},{high:g}: LOW and HIGH are accepted, from "
            f"{dimension.low:g} to {dimension.high:g}"
        )
    if isinstance(dimension, FloatDistribution):
        return FloatDistribution(low, high, log=dimension.log)
    if not (low.is_integer() and high.is_integer()):
        raise InputError(f"--within {name}={low:g},{high:g}: {name} is a whole number")
    return IntDistribution(int(low), int(high), log=dimension.log)
