"""Prediction on fake tensors against measurement on real ones: equal to the byte."""

import pytest
import torch

from memmeta import data
from memmeta.config import DataConfig, LearnerConfig, RunConfig, TrainingConfig
from memmeta.prediction import ShapeDataset, predict_peak_memory
from memmeta.training import MetaTrainer

LEARNERS = {
    "memory_reduced": {},
    "unscaled": {"feature_scaling": "none"},
    "group norm": {"norm": "group"},
    "frozen norm": {"norm": "frozen"},
    "chunks of sets": {"chunk": 6},
    "chunks of images": {"norm": "group", "chunk": 5},
    "anil": {"algorithm": "anil"},
    "anil, naive": {"algorithm": "anil", "kind": "naive"},
    "anil, chunks of tasks": {"algorithm": "anil", "chunk": 12},
    "itd_bio": {"algorithm": "itd_bio"},
    "itd_bio, naive": {"algorithm": "itd_bio", "kind": "naive"},
    "maml": {"algorithm": "maml"},
    "maml, first order": {"algorithm": "maml", "first_order": True},
    "mlp head": {"head": "mlp"},
    "last block": {"head": "last_block"},
    "last block, unrolled": {"head": "last_block", "algorithm": "itd_bio"},
    "resnet12": {"backbone": "resnet12"},
    "warm start": {"warm_start": True, "task_pool": 6},
}


def make_run(task_batch, steps, **learner):
    config = {"filters": 4, "task_batch": task_batch, "inner_steps": steps, "cg_steps": steps + 1}
    return RunConfig(
        data=DataConfig(ways=3, shots=2, queries=2),
        learner=LearnerConfig(**config | learner),
        training=TrainingConfig(iterations=3),
    )


def measured(run, dataset):
    trainer = MetaTrainer(run, dataset, "cpu")
    while not trainer.done:
        trainer.step()
    return trainer.peak_memory


@pytest.mark.parametrize("learner", LEARNERS.values(), ids=LEARNERS)
@pytest.mark.parametrize(("task_batch", "steps"), [(1, 1), (3, 4)])
def test_equals_the_measurement_to_the_byte(dataset, learner, task_batch, steps):
    run = make_run(task_batch, steps, **learner)
    assert predict_peak_memory(run, dataset.input_shape) == measured(run, dataset)


def test_equals_the_measurement_in_regression():
    run = RunConfig(
        data=DataConfig(name="sinusoid", ways=1, shots=4, queries=6),
        learner=LearnerConfig(backbone="mlp", inner_lr=0.1, task_batch=3),
        training=TrainingConfig(iterations=3),
    )
    assert predict_peak_memory(run) == measured(run, data.load("sinusoid", None))


def test_real_numbers_and_zeros_hold_the_same(dataset):
    run = make_run(2, 3)
    assert measured(run, ShapeDataset(dataset.input_shape)) == measured(run, dataset)


def test_leaves_the_random_generator_as_it_was(dataset):
    before = torch.get_rng_state()
    predict_peak_memory(make_run(1, 1), dataset.input_shape)
    assert torch.equal(torch.get_rng_state(), before)


def test_input_shapes_are_those_of_the_data(data_root):
    for name in ("glyphs", "sinusoid"):
        assert data.load(name, data_root).input_shape == data.INPUT_SHAPES[name]
    assert data.INPUT_SHAPES.keys() == {*data.SOURCES, "sinusoid"}
