"""Whether memory grows with the inner steps, the other settings held."""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy.linalg import orth
from scipy.optimize import least_squares
from statsmodels.api import OLS

from analysis.records.trials import Trial
from analysis.statistics.factorial import settings, varying
from analysis.statistics.responses import PEAK_MEMORY

MARGIN = 0.05
"""Growth over the whole range of the dimension that is as good as none, as a share."""

WIDE = 10
"""Positive numbers whose largest is so many times the smallest are taken as logarithms."""

Verdict = Literal["does not grow", "grows", "undecided"]

_ABSENT = "does not apply"


class Interval(NamedTuple):
    """Of the growth over the whole range: 0.05 is 5 per cent more."""

    low: float
    high: float


@dataclass(frozen=True)
class Growth:
    """How peak memory grows with the inner steps, for one algorithm."""

    label: str
    """The algorithm and what decides how it grows: `anil naive, linear head`."""
    trials: int
    """How many it is from."""
    lowest: int
    """The fewest inner steps."""
    highest: int
    """The most."""
    verdict: Verdict
    """See `growth`."""
    reason: str | None = None
    """Why there are no numbers, where there are none; they are None then."""
    amount_per_step: float | None = None
    """Growth per inner step, in MiB, for the geometric mean of what is at `lowest`."""
    total: float | None = None
    """Relative growth from `lowest` to `highest`."""
    interval: Interval | None = None
    """Its 95 % confidence interval."""
    equivalence: Interval | None = None
    """Its 90 % interval, which two one-sided tests at 5 % compare with `MARGIN`."""


def growth(trials: Iterable[Trial], tuned: Collection[str] = ()) -> tuple[Growth, ...]:
    """Fit memory = (1 + g x) times what the other settings make of it, for each algorithm.

    x goes from 0 at the fewest inner steps to 1 at the most: a graph that is kept for every one
    adds the same to memory for each. The fit is least squares on logarithms, and intervals are
    those of its linearisation at the best g.

    Algorithms are taken apart by kind, first order and head, too. Trials that differ in the seed
    alone are one observation, their mean, since equal measurements are no further evidence. The
    other settings are held by terms of their own: in stage grid by a constant for each combination
    of them, elsewhere by linear and quadratic terms of each number (of its logarithm, see `WIDE`)
    and a constant for each choice.

    The verdict is

    - "does not grow" exactly if two one-sided t tests at 5 % each (Schuirmann, 1987) find the
      growth over the whole range within `MARGIN`: its 90 % interval lies inside +-MARGIN. What is
      not significant is not for that reason absent.
    - "grows" if that is not so, and the 95 % interval lies above 0.
    - "undecided" otherwise: also of what shrinks, and where nothing can be estimated.

    Args:
        trials: those of one stage. Such as did not end well are left out: where some ran out of
            memory, the result is of the others.
        tuned: fields that have their own best value at each number of inner steps and have no
            part in memory: these are not held.

    Returns:
        A result for each algorithm with a complete trial, in the order in which they come.
    """
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        if PEAK_MEMORY.of(trial) is not None:
            groups.setdefault(label(trial), []).append(trial)
    free = {"inner_steps", *tuned}
    return tuple(_growth(name, own, free) for name, own in groups.items())


def label(trial: Trial) -> str:
    """The algorithm, and what decides how its memory grows."""
    own = settings(trial)
    order = "first order" if own.get("first_order") else None
    words = (own["algorithm"], own.get("kind"), order)
    return f"{' '.join(word for word in words if word)}, {own['head']} head"


def _growth(name: str, trials: Sequence[Trial], free: Collection[str]) -> Growth:
    others = [other for other in varying(trials) if other not in free]
    places, logs, held = _observations(trials, others)
    in_grid = all(trial.stage == "grid" for trial in trials)
    # A basis, for terms repeat each other: so does the square of a number that has two values.
    controls = orth(_one_hot(held) if in_grid else _terms(held))
    lowest, highest = places.min().item(), places.max().item()
    span = highest - lowest
    x = (places - lowest) / (span or 1)
    terms = np.linalg.matrix_rank(np.column_stack([x, controls]))
    start = name, len(trials), lowest, highest
    if not span:
        return Growth(*start, "undecided", f"all have inner_steps {lowest}")
    if terms == controls.shape[1]:
        return Growth(*start, "undecided", "inner_steps goes with the other settings that vary")
    if len(logs) <= terms:
        return Growth(*start, "undecided", "too few trials for the settings that vary")
    total = _least_squares(x, logs, controls)
    at_lowest = logs - np.log1p(total * x)
    fit = OLS(at_lowest, np.column_stack([x / (1 + total * x), controls])).fit()
    confident, equivalent = (
        Interval(*(total + fit.conf_int(alpha)[0]).tolist()) for alpha in (0.05, 0.1)
    )
    return Growth(
        *start,
        _verdict(confident, equivalent),
        amount_per_step=total / span * math.exp(at_lowest.mean()),
        total=total,
        interval=confident,
        equivalence=equivalent,
    )


def _least_squares(x: np.ndarray, logs: np.ndarray, controls: np.ndarray) -> float:
    """The g with which log(1 + g x) and a combination of the controls come closest to the logs.

    Args:
        x: [n], from 0 to 1.
        logs: [n].
        controls: [n, terms], orthonormal columns.
    """

    def rest(values: np.ndarray) -> np.ndarray:
        left: np.ndarray = values - controls @ (controls.T @ values)
        return left

    # In s = log(1 + g), so that the model is positive for every s; from where it is linear in s.
    def misfit(s: np.ndarray) -> np.ndarray:
        return rest(logs - np.log1p(np.expm1(s) * x))

    def slope(s: np.ndarray) -> np.ndarray:
        return -rest(np.exp(s) * x / (1 + np.expm1(s) * x))[:, None]

    own = rest(x)
    begin = own @ logs / (own @ own)
    found = least_squares(misfit, begin, slope, xtol=1e-15, ftol=1e-15, gtol=1e-15)
    return math.expm1(found.x.item())


def _verdict(confident: Interval, equivalent: Interval) -> Verdict:
    """From the 95 % and the 90 % interval of the growth."""
    if equivalent.low > -MARGIN and equivalent.high < MARGIN:
        return "does not grow"
    return "grows" if confident.low > 0 else "undecided"


def _observations(
    trials: Iterable[Trial], others: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, list[tuple[Any, ...]]]:
    """The inner steps, the logarithm of memory and the other settings for each config.

    Mean logarithms over the seeds of a config; n of each.
    """
    found: dict[tuple[Any, ...], list[float]] = {}
    for trial in trials:
        own, value = settings(trial), PEAK_MEMORY.of(trial)
        assert value is not None
        config = own["inner_steps"], tuple(own.get(name, _ABSENT) for name in others)
        found.setdefault(config, []).append(math.log(value))
    places, held = zip(*found, strict=True)
    return np.array(places), np.array([np.mean(logs) for logs in found.values()]), list(held)


def _one_hot(values: Sequence[Any]) -> np.ndarray:
    """A column for each different value, [n, values]: 1 where it is this one."""
    levels = list(dict.fromkeys(values))
    return np.array([[float(value == level) for level in levels] for value in values])


def _terms(held: Sequence[tuple[Any, ...]]) -> np.ndarray:
    """A constant and the terms of each other setting, [n, terms]."""
    columns = [np.ones((len(held), 1))]
    for values in zip(*held, strict=True):
        numeric = all(value == _ABSENT or type(value) in (int, float) for value in values)
        columns.append(_polynomial(values) if numeric else _one_hot(values))
    return np.hstack(columns)


def _polynomial(values: Sequence[Any]) -> np.ndarray:
    """Linear and quadratic, [n, 2]; a number that does not apply is at the mean of the others."""
    absent = np.array([value == _ABSENT for value in values])
    numbers = np.array([math.nan if value == _ABSENT else value for value in values])
    known = numbers[~absent]
    if known.min() > 0 and known.max() >= WIDE * known.min():
        numbers, known = np.log(numbers), np.log(known)
    standard = np.where(absent, 0.0, (numbers - known.mean()) / known.std())
    return np.column_stack([standard, standard**2])
