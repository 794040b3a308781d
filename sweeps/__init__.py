"""Hyperparameter sweeps: define a study, run it, and look at its result.

The other modules of this package are studies. `sweeps.engine` runs them.
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
    **dict.fromkeys(("FailedError", "InputError"), "memmeta.errors"),
    **dict.fromkeys(
        ("choice", "integers", "logintegers", "loguniform", "uniform"),
        "sweeps.engine.study.distributions",
    ),
    **dict.fromkeys(("Best", "Result", "load"), "sweeps.result"),
    "Study": "sweeps.engine.study.study",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is asked for: Optuna and PyTorch take seconds to import."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
