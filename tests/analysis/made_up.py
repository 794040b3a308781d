"""Simulated trials and sweeps without a store, for tests of statistics and reports."""

from collections.abc import Iterable, Mapping
from typing import Any

from analysis.records.trials import Sweep, Trial, ordered
from memmeta.config import DataConfig, LearnerConfig, RunConfig, TrainingConfig
from sweeps.engine.study.outcome import Stage, Status

MIB = 2**20
DATA = DataConfig(name="glyphs")


def trial(
    stage: Stage,
    index: int,
    value: float | None,
    *,
    seed: int = 0,
    status: Status = "complete",
    data: DataConfig = DATA,
    learner: Mapping[str, Any] | None = None,
    tasks: int = 100,
    **facts: Any,
) -> Trial:
    """A trial with `value` on the validation tasks; `facts` are its other fields."""
    config = RunConfig(
        data=data,
        learner=LearnerConfig(**learner or {}),
        training=TrainingConfig(tasks=tasks, val_tasks=50),
        seed=seed,
    )
    defaults: dict[str, Any] = {
        "run_name": f"{stage} {index:03d}",
        "message": None,
        "val_interval": 0.02,
        "test_value": None,
        "test_interval": None,
        "peak_memory_bytes": 100 * MIB,
        "predicted_memory_bytes": 100 * MIB,
        "reserved_memory_bytes": 300 * MIB,
        "seconds_per_step": 0.1,
        "seconds": 36.0,
        "run_id": f"{stage}{index}",
        "parent_run_id": "parent",
        "commit": "0f3c",
        "hardware": "CPU, torch 2",
        "threads": 1,
        "gpus": 0.0,
        "data_digest": "9e1d",
    }
    return Trial(
        stage=stage,
        index=index,
        status=status,
        key=config.key,
        config=config,
        value=value,
        **defaults | facts,
    )


def sweep(trials: Iterable[Trial], space: Mapping[str, Any] | None = None, **search: Any) -> Sweep:
    """A sweep of these trials, with `space` as in YAML and further settings of stage search."""
    settings = {"space": dict(space or {})}
    stages: dict[Stage, Any] = {"explore": settings, "search": settings | search}
    return Sweep("made_up", "made_up-100tasks-seed0", ordered(trials), stages, alternatives=())
