"""A regression study that takes seconds."""

from optuna.distributions import FloatDistribution

from memmeta.config import DataConfig, LearnerConfig, TrainingConfig
from sweeps.engine.command_line import main
from sweeps.engine.study import Study

STUDY = Study(
    name="tiny_regression",
    data=DataConfig(name="sinusoid", ways=1),
    learner=LearnerConfig(backbone="mlp", inner_steps=3, cg_steps=3, task_batch=2),
    training=TrainingConfig(iterations=6, evaluations=2, val_tasks=4, test_tasks=4),
    trials=3,
    space={"inner_lr": FloatDistribution(0.01, 1.0, log=True)},
)

if __name__ == "__main__":
    main(STUDY)
