"""The definition of a sweep: the study, its search space and its objective."""

from sweeps.engine.study.study import Study

__all__ = ["Study"]
