"""What a sweep is asked to do: the study, its search space and its objective."""

from sweeps.engine.study.study import Study

__all__ = ["Study"]
