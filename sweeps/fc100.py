"""FC100, 5-way 5-shot, Conv4-64: the paper's second setting."""

from memmeta.config import DataConfig, LearnerConfig, TrainingConfig
from sweeps.engine.command_line import main
from sweeps.engine.study import Study

STUDY = Study(
    name="fc100",
    data=DataConfig(name="fc100"),
    learner=LearnerConfig(filters=64),
    training=TrainingConfig(tasks=3200, test_tasks=1000),
)

if __name__ == "__main__":
    main(STUDY)
