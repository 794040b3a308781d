"""Characters of many scripts, 5-way 1-shot, Conv4-32: a real few-shot problem with no download."""

from memmeta.config import DataConfig, LearnerConfig, TrainingConfig
from sweeps.engine.command_line import main
from sweeps.engine.study import Study

STUDY = Study(
    name="glyphs",
    data=DataConfig(name="glyphs", shots=1),
    learner=LearnerConfig(filters=32),
    # So that the quickstart takes minutes also on slow cores: more tasks give better learners.
    training=TrainingConfig(tasks=400, evaluations=2, val_tasks=100, test_tasks=300),
    trials=16,
)

if __name__ == "__main__":
    main(STUDY)
