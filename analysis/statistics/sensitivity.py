"""Sensitivity of a response to each dimension, from the trials of a space-filling design.

A surrogate (see `surrogate.py`) is fitted to the trials of stage explore. Its Sobol indices and
average effects are computed only if it predicts configs that it has not seen.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from threadpoolctl import threadpool_limits

from analysis.records.trials import Trial
from analysis.statistics.averages import Curve, Map, curves, maps
from analysis.statistics.cross_validation import R2, cross_validated_r2, size_for
from analysis.statistics.encoding import Space, encode, space_size, with_loop_distances
from analysis.statistics.observations import observations
from analysis.statistics.posterior import Draws, likely_kernels
from analysis.statistics.response_model import ResponseModel, evaluation_points
from analysis.statistics.responses import Response
from analysis.statistics.sobol import Index, Interaction, sobol_indices
from analysis.statistics.surrogate import fit

THRESHOLD = 0.7
"""Cross-validated R² from which the surrogate represents the response; a common choice."""

MIN_CONFIGS = 10
"""Minimum number of configs for computing R²."""

_RESTARTS = 1


@dataclass(frozen=True)
class Sensitivity:
    """Sensitivity of a response, as far as the trials of stage explore support it."""

    response: Response
    """The response. If it is `log`, the variance of its logarithm is decomposed."""
    names: tuple[str, ...]
    """Dimensions of the space."""
    trials: int
    """Number of trials with the response."""
    configs: int
    """Number of distinct configs among them."""
    left_out: int
    """Number of trials of stage explore without the response: diverged, out of memory, pruned."""
    r2: R2 | None
    """R² of the surrogate for unseen configs; None with too few configs or a constant response."""
    supported: bool
    """Whether the lowest R² reaches `THRESHOLD`. Otherwise all fields below `verdict` are empty."""
    verdict: str
    """Summary in one line; if not supported, with an estimate of how many trials would suffice."""
    indices: tuple[Index, ...] = ()
    """One entry per dimension, by decreasing total order."""
    interactions: tuple[Interaction, ...] = ()
    """One entry per pair of dimensions, by decreasing value."""
    curves: tuple[Curve, ...] = ()
    """One entry per dimension, in the order of the space."""
    maps: tuple[Map, ...] = ()
    """Maps of the strongest interactions and of `ALWAYS_MAPPED`."""


def analyse(
    trials: Iterable[Trial], space: Space, response: Response, seed: int = 0
) -> Sensitivity:
    """Analyse the sensitivity of `response` in the trials of stage explore.

    Args:
        trials: trials of a sweep; only those of stage explore are used.
        space: search space of the sweep.
        response: the response to explain.
        seed: seed of samples, folds and draws. Equal seeds give identical results.
    """
    explore = sorted((t for t in trials if t.stage == "explore"), key=lambda trial: trial.index)
    measured = sum(response.value_of(trial) is not None for trial in explore)
    observed = observations(explore, space, response)
    values = np.array([observation.value for observation in observed], dtype=float)
    empty = Sensitivity(
        response=response,
        names=tuple(space),
        trials=measured,
        configs=len(observed),
        left_out=len(explore) - measured,
        r2=None,
        supported=False,
        verdict="",
    )
    refusal = _refusal(empty, values)
    if refusal:
        return replace(empty, verdict=refusal)
    rows = [observation.params for observation in observed]
    features = with_loop_distances(encode(rows, space), space)
    values = np.log(values) if response.log else values
    # The matrices are small: threads would cost several times what they save.
    with threadpool_limits(limits=1):
        r2 = cross_validated_r2(features, values, seed)
        judged = replace(empty, r2=r2)
        if r2.low < THRESHOLD:
            needed = size_for(THRESHOLD, features, values, r2, seed)
            return replace(judged, verdict=_unsupported(judged, r2, needed, space_size(space)))
        surrogate = fit(features, values, seed, _RESTARTS)
        draws = Draws(surrogate, likely_kernels(surrogate, seed), seed)
        points = evaluation_points(tuple(space.items()), explore[0].config.learner, seed)
        return _supported(judged, r2, ResponseModel(surrogate, draws, points, response.log))


def _refusal(empty: Sensitivity, values: np.ndarray) -> str | None:
    """Why no surrogate can be fitted; None if one can."""
    title, trials, configs = empty.response.title, empty.trials, empty.configs
    if not empty.names:
        return "the space has no dimensions"
    if configs < MIN_CONFIGS:
        repeats = "" if configs == trials else f", of {configs} different configs"
        return (
            f"{trials} trials of stage explore with a {title}{repeats}: "
            f"at least {MIN_CONFIGS} are needed"
        )
    if np.ptp(values) <= 1e-9 * np.abs(values).max():
        return f"{title} is the same in all {trials} trials"
    return None


def _r2_text(r2: R2, low: float, judged: Sensitivity) -> str:
    """The range of R² from `low` on, and the number of trials."""
    ends = dict.fromkeys([f"{low:.2f}", f"{r2.high:.2f}"])
    repeats = "" if judged.configs == judged.trials else f" ({judged.configs} configs)"
    return f"R² {' to '.join(ends)} from {judged.trials} trials{repeats}"


def _unsupported(judged: Sensitivity, r2: R2, needed: int | None, possible: float) -> str:
    """The verdict on a surrogate that does not predict well, with the trials that would suffice.

    Args:
        judged: the result without a verdict.
        r2: R² of the surrogate.
        needed: estimated number of configs that would suffice; None if no number would.
        possible: number of configs in the space.
    """
    # A value below the threshold must not be rounded up to it.
    stated = _r2_text(r2, min(r2.low, THRESHOLD - 0.01), judged)
    refusal = f"{stated}: the data do not support indices"
    if needed is None or needed > possible:
        return f"{refusal}, and there is no sign that more trials would"
    trials = judged.trials + judged.left_out
    more = max(math.ceil(needed * trials / judged.configs), trials + 1)
    # An extrapolation, so only two digits.
    unit = 10 ** max(len(str(more)) - 2, 0)
    return f"{refusal}; about {math.ceil(more / unit) * unit} trials would"


def _supported(judged: Sensitivity, r2: R2, model: ResponseModel) -> Sensitivity:
    indices, interactions = sobol_indices(model)
    return replace(
        judged,
        supported=True,
        verdict=_r2_text(r2, r2.low, judged),
        indices=indices,
        interactions=interactions,
        curves=curves(model),
        maps=maps(model, interactions),
    )
