"""The memory of own networks is predicted to the byte, without their weights."""

import pytest

from memmeta.config import DataConfig, LearnerConfig, RunConfig, TrainingConfig
from memmeta.memory.prediction import ShapeDataset, predict_peak_memory
from memmeta.training import MetaTrainer
from tests.memmeta.networks.nets import HERE

LEARNERS = {
    "vit": {"backbone": "timm/test_vit"},
    "resnet": {"backbone": "timm/test_resnet"},
    "last block": {"backbone": "timm/test_vit", "train_last": 1},
    "chunks of images": {"backbone": "timm/test_vit", "chunk": 5},
    "anil, naive": {"backbone": "timm/test_vit", "algorithm": "anil", "feature_reuse": False},
    "own": {"backbone": f"{HERE}:convolutional", "backbone_args": {"width": 5}},
    "reads numbers": {"backbone": f"{HERE}:Reading", "input_size": 24},
    "unused parameters": {"backbone": f"{HERE}:Direct", "backbone_args": {"unused": True}},
}


def make_run(**learner):
    fields = {"task_batch": 2, "inner_steps": 2, "cg_steps": 2}
    if learner["backbone"].startswith("timm"):
        fields["input_size"] = 64
    return RunConfig(
        data=DataConfig(ways=3, shots=2, queries=2, eval_queries=4),
        learner=LearnerConfig(**fields | learner),
        training=TrainingConfig(iterations=3),
    )


QUICK = ("vit", "resnet", "own", "reads numbers")


@pytest.mark.parametrize(
    "learner",
    [
        pytest.param(learner, id=name, marks=[] if name in QUICK else pytest.mark.thorough)
        for name, learner in LEARNERS.items()
    ],
)
def test_the_prediction_equals_the_measurement_to_the_byte(learner):
    run, shape = make_run(**learner), (1, 28, 28)
    trainer = MetaTrainer(run, ShapeDataset(shape), "cpu")
    while not trainer.done:
        trainer.step()
    assert predict_peak_memory(run, shape) == trainer.peak_memory
