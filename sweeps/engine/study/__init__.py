"""The definition of a sweep: the study, its search space and its objective."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweeps.engine.study.study import Study

__all__ = ["Study"]


def __getattr__(name: str) -> Any:
    """Import `Study` when it is asked for: it needs Optuna, and other modules here do not."""
    if name == "Study":
        from sweeps.engine.study.study import Study

        return Study
    raise AttributeError(f"module {__name__} has no attribute {name}")
