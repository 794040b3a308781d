"""Memory-reduced meta-learning: the learner. Does not import Ray, Optuna or MLflow."""

from importlib.metadata import version

__version__ = version("memmeta")
