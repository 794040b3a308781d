"""A region of the search space, to analyse a response without the trials beyond a cliff.

The points of a space-filling design that lie in a region also fill that region.
"""

from collections.abc import Iterable, Mapping

from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from analysis.records.trials import Trial
from analysis.statistics.encoding import Space, params
from memmeta.errors import InputError, shown

Region = Mapping[str, tuple[float, float]]
"""Range of some dimensions, with both ends included. An empty region is the whole space."""


def parse_region(texts: Iterable[str]) -> Region:
    """Parse ranges such as `inner_lr=0.03,1`.

    Raises:
        InputError: a text has another form, or a dimension is repeated.
    """
    region: dict[str, tuple[float, float]] = {}
    for text in texts:
        name, _, ends = text.partition("=")
        try:
            low, high = map(float, ends.split(","))
        except ValueError:
            raise InputError(
                f"--within {shown(text)}: NAME=LOW,HIGH is accepted, such as inner_lr=0.03,1"
            ) from None
        if name in region:
            raise InputError(f"--within {shown(text)}: {name} is given twice")
        region[name] = low, high
    return region


def narrow(space: Space, region: Region) -> dict[str, BaseDistribution]:
    """The space restricted to a region.

    Raises:
        InputError: the space lacks a dimension of the region, or a range is not within the space.
    """
    unknown = next((name for name in region if name not in space), None)
    if unknown is not None:
        raise InputError(f"within {unknown}: the space has {', '.join(space) or 'no dimensions'}")
    return {
        name: _narrowed(name, dimension, *region[name]) if name in region else dimension
        for name, dimension in space.items()
    }


def trials_inside(trials: Iterable[Trial], space: Space, region: Region) -> tuple[Trial, ...]:
    """The trials in a region. A dimension that does not apply to a trial does not exclude it."""
    inside = []
    for trial in trials:
        values = params(trial, space)
        if all(low <= values.get(name, low) <= high for name, (low, high) in region.items()):
            inside.append(trial)
    return tuple(inside)


def _narrowed(name: str, dimension: BaseDistribution, low: float, high: float) -> BaseDistribution:
    gapless = {FloatDistribution: None, IntDistribution: 1}
    if (
        not isinstance(dimension, FloatDistribution | IntDistribution)
        or dimension.step != gapless[type(dimension)]
    ):
        raise InputError(f"within {name}: a dimension with choices or steps has no range")
    if not dimension.low <= low < high <= dimension.high:
        raise InputError(
            f"within {name}={low:g},{high:g}: LOW and HIGH are accepted, from "
            f"{dimension.low:g} to {dimension.high:g}"
        )
    if isinstance(dimension, FloatDistribution):
        return FloatDistribution(low, high, log=dimension.log)
    if not (low.is_integer() and high.is_integer()):
        raise InputError(f"within {name}={low:g},{high:g}: {name} takes integers")
    return IntDistribution(int(low), int(high), log=dimension.log)
