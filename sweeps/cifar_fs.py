"""CIFAR-FS, 5-way 5-shot, Conv4-64: the paper's first setting."""

from memmeta.config import DataConfig, LearnerConfig, TrainingConfig
from sweeps.engine.command_line import main
from sweeps.engine.study import Study

STUDY = Study(
    name="cifar_fs",
    data=DataConfig(name="cifar_fs"),
    learner=LearnerConfig(filters=64),
    training=TrainingConfig(tasks=3200, test_tasks=1000),
)

if __name__ == "__main__":
    main(STUDY)
