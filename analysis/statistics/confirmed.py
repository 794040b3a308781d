"""What stage confirm says: the best configs, trained anew with fresh seeds."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from scipy.special import stdtrit

from analysis.records.trials import Sweep, Trial
from memmeta.config import RunConfig
from memmeta.exported import FreshSeed
from memmeta.metric import ACCURACY, Metric
from sweeps.engine.study.seeds import SeedMean, over_seeds

_UPPER = 0.975
"""Quantile of the upper end of a 95 % interval."""


@dataclass(frozen=True)
class ConfirmedConfig:
    """A config of explore or search, and what fresh training seeds gave for it."""

    candidate: Trial | None
    """The trial that was confirmed, if it is in the ranking still; it differs in its seed alone."""
    trials: tuple[Trial, ...]
    """Those of stage confirm that ended well, one a seed."""
    incomplete: int
    """Further seeds, which did not end well or have not ended."""
    val: SeedMean
    """On the validation tasks."""
    test: SeedMean
    """On the test tasks, which had no part in the choice of the config."""
    task_interval: float
    """Half-width of the 95 % interval over test tasks of one trained model, mean over seeds."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """The fresh training seeds that ended well."""
        return tuple(trial.config.seed for trial in self.trials)

    @property
    def optimism(self) -> float | None:
        """By how much the candidate's one seed overstates the mean of fresh ones.

        In the unit of the metric; positive where the candidate looks better than it is, whether
        the metric is to be high or low. None without a candidate.
        """
        if self.candidate is None:
            return None
        order = self.candidate.config.data.metric.order
        return order(self.val.value) - order(self.candidate.value)

    def confirms(self, trial: Trial) -> bool:
        """Whether a trial differs from these in its seed alone."""
        return without_seed(trial) == without_seed(self.trials[0])


class SeedDeviation(NamedTuple):
    """How much the metric on the validation tasks varies with the training seed alone."""

    deviation: float
    """Standard deviation over seeds, pooled over configs."""
    degrees_of_freedom: int
    """Different seeds less one: configs share them, and a seed does much the same to all."""

    @property
    def told_apart(self) -> float:
        """How far two single seeds of equally good configs differ at most in 19 of 20 cases."""
        return float(stdtrit(self.degrees_of_freedom, _UPPER)) * math.sqrt(2) * self.deviation


def confirmed(sweep: Sweep) -> tuple[ConfirmedConfig, ...]:
    """The configs of stage confirm: those with most seeds first, and of these the best mean.

    The mean is that on the validation tasks. One of few seeds could be the best by luck. A config
    of which no seed has ended well is not among them.
    """
    groups: dict[RunConfig, list[Trial]] = {}
    for trial in sweep.of("confirm"):
        groups.setdefault(without_seed(trial), []).append(trial)
    candidates: dict[RunConfig, Trial] = {}
    for trial in sweep.complete:
        candidates.setdefault(without_seed(trial), trial)
    found = [
        _confirmed(trials, candidates.get(config))
        for config, trials in groups.items()
        if any(map(_ended_well, trials))
    ]
    order = sweep.metric.order
    return tuple(sorted(found, key=lambda c: (-len(c.trials), order(c.val.value))))


def seed_deviation(sweep: Sweep) -> SeedDeviation | None:
    """The standard deviation over training seeds, within configs, pooled over all confirmed ones.

    None if no config has two fresh seeds.
    """
    several = [config for config in confirmed(sweep) if len(config.trials) > 1]
    if not several:
        return None
    pooled = sum(len(config.trials) - 1 for config in several)
    squares = sum(
        (len(config.trials) - 1) * statistics.variance(map(_value, config.trials))
        for config in several
    )
    seeds = {seed for config in several for seed in config.seeds}
    return SeedDeviation(math.sqrt(squares / pooled), len(seeds) - 1)


def mean_optimism(sweep: Sweep) -> float | None:
    """The mean of `ConfirmedConfig.optimism` over the confirmed configs; None without any."""
    known = [c.optimism for c in confirmed(sweep) if c.optimism is not None]
    return statistics.fmean(known) if known else None


def fresh_seed_interval(trial: Trial, sweep: Sweep) -> FreshSeed | None:
    """What one more training seed of a trial's config would give on the validation tasks.

    The 95 % prediction interval for a normal sample whose variance is known from elsewhere with
    some degrees of freedom (Hahn and Meeker, Statistical Intervals, 1991, chapter 4): with n own
    seeds, their mean ± t * sd * sqrt(1 + 1/n). A trial that was not confirmed has its one seed,
    less what those of the confirmed configs overstate on average: right for one that is nearly as
    good, too low for one that nothing selected. The interval ends where the metric does.

    Args:
        trial: a complete one.
        sweep: the sweep that it is of.

    Returns:
        None if the sweep cannot tell how much seeds differ, or how much one overstates.
    """
    deviation = seed_deviation(sweep)
    own = _own_seeds(trial, sweep)
    if deviation is None or own is None:
        return None
    centre, seeds = own
    quantile = float(stdtrit(deviation.degrees_of_freedom, _UPPER))
    half = quantile * deviation.deviation * math.sqrt(1 + 1 / seeds)
    low, expected, high = (
        _within_range(value, sweep.metric) for value in (centre - half, centre, centre + half)
    )
    return FreshSeed(expected=expected, low=low, high=high, seeds=seeds)


def _own_seeds(trial: Trial, sweep: Sweep) -> tuple[float, int] | None:
    """What a config is expected to give, and the number of seeds that say so."""
    for config in confirmed(sweep):
        if config.confirms(trial):
            return config.val.value, len(config.trials)
    optimism = mean_optimism(sweep)
    if optimism is None:
        return None
    overstated = optimism if sweep.metric.direction == "maximize" else -optimism
    return _value(trial) - overstated, 1


def _confirmed(trials: Sequence[Trial], candidate: Trial | None) -> ConfirmedConfig:
    ended = tuple(filter(_ended_well, trials))
    return ConfirmedConfig(
        candidate=candidate,
        trials=ended,
        incomplete=len(trials) - len(ended),
        val=over_seeds([trial.value for trial in ended if trial.value is not None]),
        test=over_seeds([trial.test_value for trial in ended if trial.test_value is not None]),
        task_interval=statistics.fmean(trial.test_interval or 0.0 for trial in ended),
    )


def _ended_well(trial: Trial) -> bool:
    measured = (trial.value, trial.test_value, trial.test_interval)
    return trial.status == "complete" and None not in measured


def without_seed(trial: Trial) -> RunConfig:
    """The trial's config, equal for trials that differ in the seed alone."""
    return trial.config.model_copy(update={"seed": 0})


def _value(trial: Trial) -> float:
    assert trial.value is not None
    return trial.value


def _within_range(value: float, metric: Metric) -> float:
    """`value`, or the end of what the metric can be."""
    return min(max(value, 0.0), 1.0 if metric is ACCURACY else math.inf)
