"""tieredImageNet, 5-way 5-shot, Conv4-32: the paper's fourth setting."""

from memmeta.config import DataConfig, LearnerConfig, TrainingConfig
from sweeps.engine.command_line import main
from sweeps.engine.study import Study

STUDY = Study(
    name="tieredimagenet",
    data=DataConfig(name="tieredimagenet"),
    learner=LearnerConfig(filters=32),
    training=TrainingConfig(tasks=16_000, evaluations=8),
    trials=64,
)

if __name__ == "__main__":
    main(STUDY)
