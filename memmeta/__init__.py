"""Memory-reduced meta-learning: the learner. Does not import Ray, Optuna or MLflow.

Examples:
    >>> import memmeta as mm
    >>> data = mm.load_dataset("glyphs", root="data")
    >>> learner = mm.LearnerConfig(filters=4, inner_steps=5)
    >>> run = mm.train(learner, data, shots=1, tasks=16, evaluations=1, val_tasks=5)
    >>> result = run.evaluate("test", tasks=5)
    >>> run.save("model.pt")
    >>> print(f"accuracy {result.value:.0%} ± {result.interval:.0%}")  # doctest: +ELLIPSIS
    accuracy ...
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memmeta.classifier import Classifier, Regressor
    from memmeta.config import DataConfig, LearnerConfig, RunConfig, TrainingConfig
    from memmeta.data import load_dataset
    from memmeta.errors import DivergedError, FailedError, InputError
    from memmeta.evaluation import Evaluation
    from memmeta.fit import train, train_run
    from memmeta.run import Run, load
    from memmeta.training import Report

    __version__: str

__all__ = [
    "Classifier",
    "DataConfig",
    "DivergedError",
    "Evaluation",
    "FailedError",
    "InputError",
    "LearnerConfig",
    "Regressor",
    "Report",
    "Run",
    "RunConfig",
    "TrainingConfig",
    "__version__",
    "load",
    "load_dataset",
    "train",
    "train_run",
]

_MODULES = {
    "memmeta.classifier": ("Classifier", "Regressor"),
    "memmeta.config": ("DataConfig", "LearnerConfig", "RunConfig", "TrainingConfig"),
    "memmeta.data": ("load_dataset",),
    "memmeta.errors": ("DivergedError", "FailedError", "InputError"),
    "memmeta.evaluation": ("Evaluation",),
    "memmeta.fit": ("train", "train_run"),
    "memmeta.run": ("Run", "load"),
    "memmeta.training": ("Report",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public object on first use: PyTorch takes seconds to import."""
    if name == "__version__":
        value: Any = import_module("importlib.metadata").version("memmeta")
    elif name in _MODULE_OF:
        value = getattr(import_module(_MODULE_OF[name]), name)
    else:
        raise AttributeError(f"module 'memmeta' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
