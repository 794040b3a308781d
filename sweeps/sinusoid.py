"""Sine waves, 10-shot regression with an MLP: tasks without images, and without files."""

from memmeta.config import DataConfig, LearnerConfig, TrainingConfig
from sweeps.engine.run import main
from sweeps.engine.study import Study

STUDY = Study(
    name="sinusoid",
    data=DataConfig(name="sinusoid", ways=1, shots=10, queries=10, eval_queries=100),
    learner=LearnerConfig(backbone="mlp"),
    training=TrainingConfig(tasks=16_000),
    trials=32,
)

if __name__ == "__main__":
    main(STUDY)
