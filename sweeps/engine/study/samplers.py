"""The samplers that can propose the trials of stage search. Add a sampler here, in one line."""

from collections.abc import Callable

from optuna import samplers
from optuna.samplers import BaseSampler

SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: samplers.TPESampler(seed=seed),
    "gp": lambda seed: samplers.GPSampler(seed=seed),
    "nsgaii": lambda seed: samplers.NSGAIISampler(seed=seed),
    "random": lambda seed: samplers.RandomSampler(seed=seed),
}
"""Name of each sampler (`Study.sampler`, `--sampler`) and a function that makes it from a seed.

A sampler must work with Optuna's ask-and-tell interface. It should use the constraints of trials,
so that it learns where trials diverge or run out of memory.
"""
