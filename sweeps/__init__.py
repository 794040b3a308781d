"""Hyperparameter sweeps: define a study, run it, and look at its result.

The modules of this package with a `STUDY` are studies, and `sweeps.engine` runs them.

Examples:
    >>> from sweeps import Study, loguniform
    >>> study = Study(
    ...     name="mine",
    ...     data={"name": "glyphs", "shots": 1},
    ...     training={"tasks": 600},
    ...     space={"inner_lr": loguniform(0.03, 3)},
    ... )
    >>> result = study.run(trials=16)  # doctest: +SKIP
    >>> result.best.config  # doctest: +SKIP
    >>> result.report("report/")  # doctest: +SKIP
"""

from typing import TYPE_CHECKING

from memmeta.system.lazy import lazy

if TYPE_CHECKING:
    from memmeta.errors import FailedError, InputError
    from sweeps.engine.study.distributions import (
        choice,
        integers,
        logintegers,
        loguniform,
        uniform,
    )
    from sweeps.engine.study.study import Study
    from sweeps.result import Best, Result, load

__all__ = [
    "Best",
    "FailedError",
    "InputError",
    "Result",
    "Study",
    "choice",
    "integers",
    "load",
    "logintegers",
    "loguniform",
    "uniform",
]

_MODULES = {
    "memmeta.errors": ("FailedError", "InputError"),
    "sweeps.engine.study.distributions": (
        "choice",
        "integers",
        "logintegers",
        "loguniform",
        "uniform",
    ),
    "sweeps.engine.study.study": ("Study",),
    "sweeps.result": ("Best", "Result", "load"),
}

__getattr__, __dir__ = lazy(__name__, _MODULES)
