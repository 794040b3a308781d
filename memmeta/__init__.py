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

from typing import TYPE_CHECKING

from memmeta.system.lazy import lazy

if TYPE_CHECKING:
    from memmeta.classifier import Classifier, Regressor
    from memmeta.config import DataConfig, LearnerConfig, RunConfig, TrainingConfig
    from memmeta.data import load_dataset
    from memmeta.errors import DivergedError, FailedError, InputError
    from memmeta.evaluation import Evaluation
    from memmeta.fit import train, train_run
    from memmeta.run import Run, load
    from memmeta.training import Report
    from memmeta.version import __version__

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
    "memmeta.version": ("__version__",),
}

__getattr__, __dir__ = lazy(__name__, _MODULES)
