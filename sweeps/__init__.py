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

from importlib import import_module
from typing import TYPE_CHECKING, Any

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
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public object on first use: Optuna takes most of a second to import."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'sweeps' has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
