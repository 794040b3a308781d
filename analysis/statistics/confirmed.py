"""Results of stage confirm, which trains the best configs again with fresh seeds."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from scipy.special import stdtrit

from analysis.records.trials import Sweep, Trial
from memmeta.config import RunConfig
from memmeta.exported import Confirmed, FreshSeed
from memmeta.metric import ACCURACY, Metric
from sweeps.engine.study.seeds import SeedMean, over_seeds

_UPPER = 0.975
"""Quantile at the upper end of a 95 % interval."""


class OtherMean(NamedTuple):
    """Mean over seeds of the metric on the test tasks of another data set than that of training."""

    test: SeedMean
    """The mean."""
    seeds: int
    """Number of seeds with a score."""


@dataclass(frozen=True)
class ConfirmedConfig:
    """A config of explore or search with its results for fresh training seeds."""

    candidate: Trial | None
    """The trial that was confirmed; None if it is not in the ranking. Only its seed differs."""
    trials: tuple[Trial, ...]
    """Complete trials of stage confirm, one per seed."""
    incomplete: int
    """Number of seeds without a complete trial."""
    val: SeedMean
    """Mean over seeds on the validation tasks."""
    test: SeedMean
    """Mean over seeds on the test tasks, which were not used to choose the config."""
    task_interval: float
    """Half-width of the 95 % interval over test tasks of one trained model, mean over seeds."""
    others: Mapping[str, OtherMean]
    """Means on the test tasks of other data sets, by name; those without any score are left out."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """The fresh training seeds with a complete trial."""
        return tuple(trial.config.seed for trial in self.trials)

    @property
    def selection_bias(self) -> float | None:
        """By how much the candidate's single seed overstates the mean over fresh seeds.

        In the unit of the metric. Positive if the candidate looks better than it is, both for
        metrics to maximize and to minimize. None without a candidate.
        """
        if self.candidate is None:
            return None
        order = self.candidate.config.data.metric.order
        return order(self.val.value) - order(self.candidate.value)

    def confirms(self, trial: Trial) -> bool:
        """Whether `trial` has this config, apart from the seed."""
        return without_seed(trial) == without_seed(self.trials[0])


class SeedDeviation(NamedTuple):
    """Variation of the metric on the validation tasks with the training seed."""

    deviation: float
    """Standard deviation over seeds, pooled over configs."""
    degrees_of_freedom: int
    """Number of distinct seeds minus one. Configs share seeds, and a seed affects all configs
    similarly, so more configs do not add degrees of freedom."""

    @property
    def chance_difference(self) -> float:
        """Bound on the difference of two equally good configs with one seed each, at 95 %."""
        return float(stdtrit(self.degrees_of_freedom, _UPPER)) * math.sqrt(2) * self.deviation


def confirmed_configs(sweep: Sweep) -> tuple[ConfirmedConfig, ...]:
    """The configs of stage confirm that have a complete trial.

    Configs with more seeds come first, since a mean over few seeds could be the best by luck.
    Configs with equally many seeds are sorted by their mean on the validation tasks.
    """
    groups: dict[RunConfig, list[Trial]] = {}
    for trial in sweep.trials_in("confirm"):
        groups.setdefault(without_seed(trial), []).append(trial)
    candidates: dict[RunConfig, Trial] = {}
    for trial in sweep.ranking:
        candidates.setdefault(without_seed(trial), trial)
    configs = [
        _confirmed_config(trials, candidates.get(config))
        for config, trials in groups.items()
        if any(map(_is_complete, trials))
    ]
    order = sweep.metric.order
    return tuple(sorted(configs, key=lambda c: (-len(c.trials), order(c.val.value))))


def confirmed_results(trial: Trial, sweep: Sweep) -> Confirmed | None:
    """The results of stage confirm for a trial's config; None if it was not confirmed."""
    for config in confirmed_configs(sweep):
        if config.confirms(trial):
            return Confirmed(
                seeds=list(config.seeds),
                val=config.val.value,
                test=config.test.value,
                others={name: mean.test.value for name, mean in config.others.items()},
            )
    return None


def seed_deviation(sweep: Sweep) -> SeedDeviation | None:
    """The standard deviation over training seeds within a config, pooled over confirmed configs.

    None if no config has two fresh seeds.
    """
    several = [config for config in confirmed_configs(sweep) if len(config.trials) > 1]
    if not several:
        return None
    pooled = sum(len(config.trials) - 1 for config in several)
    squares = sum(
        (len(config.trials) - 1) * statistics.variance(map(_value, config.trials))
        for config in several
    )
    seeds = {seed for config in several for seed in config.seeds}
    return SeedDeviation(math.sqrt(squares / pooled), len(seeds) - 1)


def mean_selection_bias(sweep: Sweep) -> float | None:
    """Mean of `ConfirmedConfig.selection_bias` over the confirmed configs; None without any."""
    biases = [c.selection_bias for c in confirmed_configs(sweep) if c.selection_bias is not None]
    return statistics.fmean(biases) if biases else None


def predict_fresh_seed(trial: Trial, sweep: Sweep) -> FreshSeed | None:
    """Predict the metric of a trial's config on the validation tasks for one more training seed.

    Uses the 95 % prediction interval of a normal sample whose variance was estimated separately
    (Hahn and Meeker, Statistical Intervals, 1991, chapter 4): with n seeds of the config, their
    mean ± t * sd * sqrt(1 + 1/n). For a config that was not confirmed, n is 1 and the mean is the
    trial's value minus the mean selection bias of the confirmed configs. This is accurate for a
    trial that is nearly as good as these, and too pessimistic for one that was not selected. The
    interval is clipped to the range of the metric.

    Args:
        trial: a complete trial.
        sweep: the sweep that contains it.

    Returns:
        The prediction, or None if the sweep does not determine the deviation over seeds or the
        selection bias.
    """
    deviation = seed_deviation(sweep)
    estimate = _expected_value(trial, sweep)
    if deviation is None or estimate is None:
        return None
    centre, seeds = estimate
    quantile = float(stdtrit(deviation.degrees_of_freedom, _UPPER))
    half = quantile * deviation.deviation * math.sqrt(1 + 1 / seeds)
    low, expected, high = (
        _clipped(value, sweep.metric) for value in (centre - half, centre, centre + half)
    )
    return FreshSeed(expected=expected, low=low, high=high, seeds=seeds)


def _expected_value(trial: Trial, sweep: Sweep) -> tuple[float, int] | None:
    """The expected metric of a trial's config, and the number of seeds that it is based on."""
    for config in confirmed_configs(sweep):
        if config.confirms(trial):
            return config.val.value, len(config.trials)
    selection_bias = mean_selection_bias(sweep)
    if selection_bias is None:
        return None
    overstated = selection_bias if sweep.metric.direction == "maximize" else -selection_bias
    return _value(trial) - overstated, 1


def _confirmed_config(trials: Sequence[Trial], candidate: Trial | None) -> ConfirmedConfig:
    complete = tuple(filter(_is_complete, trials))
    return ConfirmedConfig(
        candidate=candidate,
        trials=complete,
        incomplete=len(trials) - len(complete),
        val=over_seeds([trial.value for trial in complete if trial.value is not None]),
        test=over_seeds([trial.test_value for trial in complete if trial.test_value is not None]),
        task_interval=statistics.fmean(trial.test_interval or 0.0 for trial in complete),
        others=_other_means(complete),
    )


def _other_means(trials: Sequence[Trial]) -> dict[str, OtherMean]:
    scores: dict[str, list[float]] = {}
    for trial in trials:
        for name, score in trial.others.items():
            if score.value is not None:
                scores.setdefault(name, []).append(score.value)
    return {name: OtherMean(over_seeds(values), len(values)) for name, values in scores.items()}


def _is_complete(trial: Trial) -> bool:
    measured = (trial.value, trial.test_value, trial.test_interval)
    return trial.status == "complete" and None not in measured


def without_seed(trial: Trial) -> RunConfig:
    """The trial's config with seed 0: equal for trials that differ only in the seed."""
    return trial.config.model_copy(update={"seed": 0})


def _value(trial: Trial) -> float:
    assert trial.value is not None
    return trial.value


def _clipped(value: float, metric: Metric) -> float:
    """Clip `value` to the range of the metric."""
    return min(max(value, 0.0), 1.0 if metric is ACCURACY else math.inf)
