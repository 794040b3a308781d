"""Characters of many scripts, 5-way 1-shot, Conv4-16: a few-shot problem without a download."""

from memmeta.config import DataConfig, LearnerConfig, TrainingConfig
from sweeps.engine.command_line import main
from sweeps.engine.study import Study

STUDY = Study(
    name="glyphs",
    data=DataConfig(name="glyphs", shots=1),
    learner=LearnerConfig(filters=16),
    # A small budget, so that the quickstart takes only minutes on slow cores.
    training=TrainingConfig(tasks=600, evaluations=2, val_tasks=100, test_tasks=300),
    trials=16,
)

if __name__ == "__main__":
    main(STUDY)
