"""Optuna's importances of the same trials, to be read beside Sobol indices."""

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
from analysis.statistics.encoding import share
from analysis.statistics.observations import Observation, observations
from analysis.statistics.responses import Response

BEST = 0.1
"""The share of the trials that PED-ANOVA calls the best."""

FOREST = 256
"""Configs that fANOVA sees at most, the first of the design: it takes time by the square of their
number."""


@dataclass(frozen=True)
class Importance:
    """What an evaluator says of each dimension."""

    method: str
    """Its name."""
    question: str
    """What it answers."""
    values: Mapping[str, float | None]
    """Of each dimension, in the order of the space; None where it cannot tell."""


def importances(
    trials: Iterable[Trial],
    space: Mapping[str, BaseDistribution],
    response: Response,
    seed: int = 0,
) -> tuple[Importance, ...]:
    """PED-ANOVA (Watanabe et al. 2023) and fANOVA (Hutter et al. 2014) of the explore trials.

    Both see a numeric dimension as the space's design does, by its share of the range or of the
    range's logarithm: over the range itself, most of what fANOVA weighs would lie in the last
    decade. Of a logarithmic response, the logarithm's variance is shared out.

    Args:
        trials: a sweep's.
        space: its space.
        response: what to explain.
        seed: of the random forest.
    """
    found = observations(trials, space, response)
    ped = PedAnovaImportanceEvaluator(target_quantile=BEST)
    forest = FanovaImportanceEvaluator(seed=seed)
    few = f"; of the first {FOREST} configs" if len(found) > FOREST else ""
    return (
        Importance(
            "PED-ANOVA",
            f"what separates the best {BEST:.0%} of the trials from the rest (sums to 1)",
            _values(_study(found, space, response), space, ped, normalize=True),
        ),
        Importance(
            "fANOVA",
            "which share of the variance over the space looked at each dimension explains by "
            f"itself in a random forest (interactions left out{few})",
            _values(_study(found[:FOREST], space, response), space, forest, normalize=False),
        ),
    )


def _study(
    found: Iterable[Observation], space: Mapping[str, BaseDistribution], response: Response
) -> optuna.Study:
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize" if response.name == "accuracy" else "minimize")
    optuna.logging.set_verbosity(verbosity)
    seen = {name: _seen(distribution) for name, distribution in space.items()}
    study.add_trials(
        optuna.trial.create_trial(
            params={name: _as_seen(value, space[name]) for name, value in of.params.items()},
            distributions={name: seen[name] for name in of.params},
            value=math.log(of.value) if response.log else of.value,
        )
        for of in found
    )
    return study


def _seen(distribution: BaseDistribution) -> BaseDistribution:
    if isinstance(distribution, CategoricalDistribution) or distribution.single():
        return distribution
    return FloatDistribution(0.0, 1.0)


def _as_seen(value: Any, distribution: BaseDistribution) -> Any:
    return value if _seen(distribution) is distribution else share(value, distribution)


def _values(
    study: optuna.Study,
    space: Mapping[str, BaseDistribution],
    evaluator: BaseImportanceEvaluator,
    normalize: bool,
) -> dict[str, float | None]:
    found: dict[str, float] = {}
    # Of a constant there is nothing to say, and Optuna raises, or calls all dimensions equal.
    if np.ptp([trial.value for trial in study.trials] or [0.0]) > 0:
        with warnings.catch_warnings():
            # Of `normalize`, and of choices that few trials have.
            warnings.simplefilter("ignore")
            found = optuna.importance.get_param_importances(
                study, evaluator=evaluator, normalize=normalize
            )
    return {name: float(found[name]) if name in found else None for name in space}
