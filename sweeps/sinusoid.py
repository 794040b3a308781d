"""Sine waves, 10-shot regression with an MLP. The tasks are generated, without files."""

from optuna.distributions import FloatDistribution

from memmeta.config import DataConfig, LearnerConfig, TrainingConfig
from sweeps.engine.command_line import main
from sweeps.engine.study.study import SPACE, Study

STUDY = Study(
    name="sinusoid",
    data=DataConfig(name="sinusoid", ways=1, shots=10, queries=10, eval_queries=100),
    learner=LearnerConfig(backbone="mlp"),
    training=TrainingConfig(tasks=16_000),
    # The squared error has more curvature than cross-entropy: its Hessian reaches about 2.
    space={**SPACE, "inner_lr": FloatDistribution(0.03, 1.0, log=True)},
)

if __name__ == "__main__":
    main(STUDY)
