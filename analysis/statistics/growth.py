"""Test whether memory grows with the inner steps when the other settings are held fixed."""

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
"""Equivalence margin: relative growth over the whole range of K that is regarded as negligible."""

LOG_RATIO = 10
"""Ratio of the largest to the smallest value from which a positive number enters as logarithm."""

Verdict = Literal["does not grow", "grows", "undecided"]

_ABSENT = "does not apply"


class Bounds(NamedTuple):
    """Ends of an interval for the relative growth over the whole range of K: 0.05 means 5 %."""

    low: float
    high: float


@dataclass(frozen=True)
class Growth:
    """Growth of peak memory with the inner steps, for one algorithm."""

    label: str
    """The algorithm and the settings that affect its growth: `anil naive, linear head`."""
    trials: int
    """Number of trials."""
    lowest: int
    """Smallest number of inner steps."""
    highest: int
    """Largest number of inner steps."""
    verdict: Verdict
    """The verdict as defined by `growth`."""
    reason: str | None = None
    """Why growth cannot be estimated; all fields below are None in that case."""
    mib_per_step: float | None = None
    """Growth per inner step in MiB, for the geometric mean of memory at `lowest`."""
    total: float | None = None
    """Relative growth from `lowest` to `highest`."""
    confidence: Bounds | None = None
    """95 % confidence interval of `total`."""
    equivalence: Bounds | None = None
    """90 % confidence interval of `total`, for two one-sided tests at 5 % against `MARGIN`."""


def growth(trials: Iterable[Trial], tuned: Collection[str] = ()) -> tuple[Growth, ...]:
    """Estimate and test the growth of peak memory with the inner steps, for each algorithm.

    The model is memory = (1 + g x) * f(other settings), where x runs from 0 at the fewest inner
    steps to 1 at the most; a graph that is kept for every inner step adds a constant amount per
    step. The model is fitted by least squares on logarithms. Intervals are those of the model
    linearised at the estimate of g.

    Trials of one algorithm are also separated by feature reuse, first order and head. Trials that
    differ only in the seed are averaged to one observation, since repeated measurements of memory
    add no evidence.
    The other settings are controlled for: in stage grid by one constant per combination,
    elsewhere by linear and quadratic terms of each number (or of its logarithm, see `LOG_RATIO`)
    and one constant per choice.

    The verdict is

    - "does not grow" if and only if two one-sided t-tests at 5 % each (TOST; Schuirmann, 1987)
      show that the growth over the whole range is within `MARGIN`: its 90 % interval lies inside
      ±MARGIN. Absence of significance is not evidence of absence.
    - "grows" if that fails and the 95 % interval lies above 0.
    - "undecided" otherwise, including decreases and cases that cannot be estimated.

    Args:
        trials: trials of one stage. Incomplete trials are ignored: if some ran out of memory, the
            result describes the others.
        tuned: fields that were tuned for each number of inner steps and do not affect memory.
            They are not controlled for.

    Returns:
        One result per algorithm with a complete trial, in order of appearance.
    """
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        if PEAK_MEMORY.value_of(trial) is not None:
            groups.setdefault(label(trial), []).append(trial)
    free = {"inner_steps", *tuned}
    return tuple(_growth(name, group, free) for name, group in groups.items())


def label(trial: Trial) -> str:
    """The algorithm with the settings that affect how its memory grows."""
    fields = settings(trial)
    order = "first order" if fields.get("first_order") else None
    reuse = {True: "cached", False: "naive", None: None}[fields.get("feature_reuse")]
    words = (fields["algorithm"], reuse, order)
    return f"{' '.join(word for word in words if word)}, {fields['head']} head"


def _growth(name: str, trials: Sequence[Trial], free: Collection[str]) -> Growth:
    others = [other for other in varying(trials) if other not in free]
    inner_steps, logs, controlled = _observations(trials, others)
    in_grid = all(trial.stage == "grid" for trial in trials)
    # An orthonormal basis, since terms can be collinear: the square of a number with two values.
    controls = orth(_one_hot(controlled) if in_grid else _terms(controlled))
    lowest, highest = inner_steps.min().item(), inner_steps.max().item()
    span = highest - lowest
    x = (inner_steps - lowest) / (span or 1)
    terms = np.linalg.matrix_rank(np.column_stack([x, controls]))
    start = name, len(trials), lowest, highest
    if not span:
        return Growth(*start, "undecided", f"all trials have inner_steps {lowest}")
    if terms == controls.shape[1]:
        return Growth(*start, "undecided", "inner_steps is confounded with other varied settings")
    if len(logs) <= terms:
        return Growth(*start, "undecided", "too few trials for the number of varied settings")
    total = _least_squares(x, logs, controls)
    at_lowest = logs - np.log1p(total * x)
    fit = OLS(at_lowest, np.column_stack([x / (1 + total * x), controls])).fit()
    confidence, equivalence = (
        Bounds(*(total + fit.conf_int(alpha)[0]).tolist()) for alpha in (0.05, 0.1)
    )
    return Growth(
        *start,
        _verdict(confidence, equivalence),
        mib_per_step=total / span * math.exp(at_lowest.mean()),
        total=total,
        confidence=confidence,
        equivalence=equivalence,
    )


def _least_squares(x: np.ndarray, logs: np.ndarray, controls: np.ndarray) -> float:
    """The least-squares estimate of g in logs = log(1 + g x) + controls @ coefficients.

    Args:
        x: relative inner steps from 0 to 1: [n].
        logs: logarithms of memory: [n].
        controls: orthonormal columns: [n, terms].
    """

    def without_controls(values: np.ndarray) -> np.ndarray:
        remainder: np.ndarray = values - controls @ (controls.T @ values)
        return remainder

    # Parametrised by s = log(1 + g), which keeps the model positive for every s.
    def residuals(s: np.ndarray) -> np.ndarray:
        return without_controls(logs - np.log1p(np.expm1(s) * x))

    def jacobian(s: np.ndarray) -> np.ndarray:
        return -without_controls(np.exp(s) * x / (1 + np.expm1(s) * x))[:, None]

    # Start at the solution of the model log(memory) = s x, linear in s.
    direction = without_controls(x)
    start = direction @ logs / (direction @ direction)
    solution = least_squares(residuals, start, jacobian, xtol=1e-15, ftol=1e-15, gtol=1e-15)
    return math.expm1(solution.x.item())


def _verdict(confidence: Bounds, equivalence: Bounds) -> Verdict:
    if equivalence.low > -MARGIN and equivalence.high < MARGIN:
        return "does not grow"
    return "grows" if confidence.low > 0 else "undecided"


def _observations(
    trials: Iterable[Trial], others: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, list[tuple[Any, ...]]]:
    """Average trials that differ only in the seed.

    Returns:
        For each of n configs: inner steps [n], mean logarithm of memory [n], and the values of
        the other settings, a list of n tuples.
    """
    logs_of: dict[tuple[Any, ...], list[float]] = {}
    for trial in trials:
        fields, value = settings(trial), PEAK_MEMORY.value_of(trial)
        assert value is not None
        config = fields["inner_steps"], tuple(fields.get(name, _ABSENT) for name in others)
        logs_of.setdefault(config, []).append(math.log(value))
    inner_steps, controlled = zip(*logs_of, strict=True)
    means = [np.mean(logs) for logs in logs_of.values()]
    return np.array(inner_steps), np.array(means), list(controlled)


def _one_hot(values: Sequence[Any]) -> np.ndarray:
    """One-hot encoding of n values: [n, distinct values]."""
    levels = list(dict.fromkeys(values))
    return np.array([[float(value == level) for level in levels] for value in values])


def _terms(controlled: Sequence[tuple[Any, ...]]) -> np.ndarray:
    """A constant and the terms of each controlled setting: [n, terms]."""
    columns = [np.ones((len(controlled), 1))]
    for values in zip(*controlled, strict=True):
        numeric = all(value == _ABSENT or type(value) in (int, float) for value in values)
        columns.append(_polynomial(values) if numeric else _one_hot(values))
    return np.hstack(columns)


def _polynomial(values: Sequence[Any]) -> np.ndarray:
    """Linear and quadratic term: [n, 2]. A number that does not apply is set to the mean."""
    absent = np.array([value == _ABSENT for value in values])
    numbers = np.array([math.nan if value == _ABSENT else value for value in values])
    known = numbers[~absent]
    if known.min() > 0 and known.max() >= LOG_RATIO * known.min():
        numbers, known = np.log(numbers), np.log(known)
    standard = np.where(absent, 0.0, (numbers - known.mean()) / known.std())
    return np.column_stack([standard, standard**2])
