"""A study that takes seconds, run like a user's study."""

from optuna.distributions import FloatDistribution, IntDistribution

from memmeta.config import DataConfig, LearnerConfig, TrainingConfig
from sweeps.engine.command_line import main
from sweeps.engine.study import Study

STUDY = Study(
    name="tiny",
    data=DataConfig(name="glyphs", shots=1, queries=1, eval_queries=2),
    learner=LearnerConfig(filters=4, inner_steps=2, cg_steps=2, task_batch=2),
    training=TrainingConfig(iterations=6, evaluations=3, val_tasks=4, test_tasks=4),
    trials=4,
    space={
        "outer_lr": FloatDistribution(1e-4, 1e-2, log=True),
        "inner_steps": IntDistribution(1, 5),
    },
)

if __name__ == "__main__":
    main(STUDY)
