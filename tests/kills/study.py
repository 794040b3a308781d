"""A study whose trials take seconds, long enough to be killed."""

from optuna.distributions import FloatDistribution, IntDistribution

from memmeta.config import DataConfig, LearnerConfig, TrainingConfig
from sweeps.engine.command_line import main
from sweeps.engine.study import Study

STUDY = Study(
    name="killed",
    data=DataConfig(name="glyphs", shots=1, queries=1, eval_queries=2),
    learner=LearnerConfig(filters=8, inner_steps=2, cg_steps=2),
    training=TrainingConfig(iterations=60, evaluations=6, val_tasks=10, test_tasks=10),
    space={
        "outer_lr": FloatDistribution(1e-4, 1e-2, log=True),
        "task_batch": IntDistribution(2, 8),
    },
)

if __name__ == "__main__":
    main(STUDY)
