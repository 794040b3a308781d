"""Hyperparameter importances from Optuna's evaluators, to compare with Sobol indices."""

import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import (
    BaseImportanceEvaluator,
    FanovaImportanceEvaluator,
    PedAnovaImportanceEvaluator,
)

from analysis.records.trials import Trial
from analysis.statistics.encoding import unit_coordinate
from analysis.statistics.observations import Observation, observations
from analysis.statistics.responses import Response

BEST = 0.1
"""Fraction of the trials that PED-ANOVA treats as the best."""

FOREST = 256
"""Maximum number of configs for fANOVA, whose run time is quadratic in it. The first configs of the
design are used."""


@dataclass(frozen=True)
class Importance:
    """Importance of every dimension according to one evaluator."""

    method: str
    """Name of the evaluator."""
    question: str
    """The question that it answers."""
    values: Mapping[str, float | None]
    """Importance by dimension, in the order of the space; None if undetermined."""


def importances(
    trials: Iterable[Trial],
    space: Mapping[str, BaseDistribution],
    response: Response,
    seed: int = 0,
) -> tuple[Importance, ...]:
    """PED-ANOVA (Watanabe et al. 2023) and fANOVA (Hutter et al. 2014) on the explore trials.

    Numeric dimensions are passed as unit coordinates, on a logarithmic scale where the space has
    one: on the raw range, the last decade would dominate fANOVA. For a logarithmic response, the
    variance of the logarithm is explained.

    Args:
        trials: trials of a sweep.
        space: its search space.
        response: the response to explain.
        seed: seed of the random forest.
    """
    observed = observations(trials, space, response)
    ped = PedAnovaImportanceEvaluator(target_quantile=BEST)
    forest = FanovaImportanceEvaluator(seed=seed)
    limited = f"; on the first {FOREST} configs" if len(observed) > FOREST else ""
    return (
        Importance(
            "PED-ANOVA",
            f"what separates the best {BEST:.0%} of the trials from the rest (sums to 1)",
            _values(_study(observed, space, response), space, ped, normalize=True),
        ),
        Importance(
            "fANOVA",
            "share of the variance over the analysed space that each dimension explains alone "
            f"in a random forest (interactions excluded{limited})",
            _values(_study(observed[:FOREST], space, response), space, forest, normalize=False),
        ),
    )


def _study(
    observed: Iterable[Observation], space: Mapping[str, BaseDistribution], response: Response
) -> optuna.Study:
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction=response.direction)
    optuna.logging.set_verbosity(verbosity)
    scaled = {name: _scaled_distribution(distribution) for name, distribution in space.items()}
    study.add_trials(
        optuna.trial.create_trial(
            params={
                name: _scaled_value(value, space[name])
                for name, value in observation.params.items()
            },
            distributions={name: scaled[name] for name in observation.params},
            value=math.log(observation.value) if response.log else observation.value,
        )
        for observation in observed
    )
    return study


def _scaled_distribution(distribution: BaseDistribution) -> BaseDistribution:
    if isinstance(distribution, CategoricalDistribution) or distribution.single():
        return distribution
    return FloatDistribution(0.0, 1.0)


def _scaled_value(value: Any, distribution: BaseDistribution) -> Any:
    is_unchanged = _scaled_distribution(distribution) is distribution
    return value if is_unchanged else unit_coordinate(value, distribution)


def _values(
    study: optuna.Study,
    space: Mapping[str, BaseDistribution],
    evaluator: BaseImportanceEvaluator,
    normalize: bool,
) -> dict[str, float | None]:
    values: dict[str, float] = {}
    # For a constant response Optuna raises, or reports equal importances.
    if np.ptp([trial.value for trial in study.trials] or [0.0]) > 0:
        with warnings.catch_warnings():
            # Optuna warns about `normalize` and about rare choices.
            warnings.simplefilter("ignore")
            values = optuna.importance.get_param_importances(
                study, evaluator=evaluator, normalize=normalize
            )
    return {name: float(values[name]) if name in values else None for name in space}
