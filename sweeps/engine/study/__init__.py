"""What a sweep searches."""

from sweeps.engine.study.study import Study

__all__ = ["Study"]
