"""Omniglot, 5-way 1-shot, Conv4-64, rotated characters as classes: the usual setting."""

from memmeta.config import DataConfig, LearnerConfig, TrainingConfig
from sweeps.engine.command_line import main
from sweeps.engine.study import Study

STUDY = Study(
    name="omniglot",
    data=DataConfig(name="omniglot", shots=1, rotations=True),
    learner=LearnerConfig(filters=64),
    training=TrainingConfig(tasks=1600),
)

if __name__ == "__main__":
    main(STUDY)
