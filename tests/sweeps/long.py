"""A study whose trials take longer than any test."""

from memmeta.config import TrainingConfig
from sweeps.engine.command_line import main
from tests.sweeps.tiny import STUDY as TINY

BETWEEN_VALIDATIONS = 200

STUDY = TINY.changed(
    name="long",
    training=TrainingConfig(
        iterations=1000 * BETWEEN_VALIDATIONS, evaluations=1000, val_tasks=4, test_tasks=4
    ),
)

if __name__ == "__main__":
    main(STUDY)
