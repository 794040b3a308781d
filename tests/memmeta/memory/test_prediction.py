"""Predictions with fake tensors equal measurements with real tensors to the byte."""

from contextlib import suppress

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memmeta import data
from memmeta.config import DataConfig, LearnerConfig, RunConfig, TrainingConfig
from memmeta.memory import prediction
from memmeta.memory.fake import fake_tensors
from memmeta.memory.prediction import ShapeDataset, predict_peak_memory, predict_trial_memory
from memmeta.peak_memory import LiveBytes, measure_peak
from memmeta.training import MetaTrainer

LEARNERS = {
    "memory_reduced": {},
    "unscaled": {"feature_scaling": "none"},
    "group norm": {"norm": "group"},
    "half precision": {"precision": "bfloat16"},
    "another optimiser": {"weight_decay": 0.1, "schedule": "cosine"},
    "frozen norm": {"norm": "frozen"},
    "chunks of sets": {"chunk": 6},
    "chunks of images": {"norm": "group", "chunk": 5},
    "anil": {"algorithm": "anil"},
    "anil, naive": {"algorithm": "anil", "feature_reuse": False},
    "anil, chunks of tasks": {"algorithm": "anil", "chunk": 12},
    "itd_bio": {"algorithm": "itd_bio"},
    "itd_bio, naive": {"algorithm": "itd_bio", "feature_reuse": False},
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
        data=DataConfig(ways=3, shots=2, queries=2, eval_queries=4),
        learner=LearnerConfig(**config | learner),
        training=TrainingConfig(iterations=3),
    )


def measured(run, dataset):
    trainer = MetaTrainer(run, dataset, "cpu")
    while not trainer.done:
        trainer.step()
    return trainer.peak_memory


@pytest.mark.parametrize("learner", LEARNERS.values(), ids=LEARNERS)
@pytest.mark.parametrize(
    ("task_batch", "steps"), [pytest.param(1, 1, marks=pytest.mark.thorough), (3, 4)]
)
def test_equals_the_measurement_to_the_byte(dataset, learner, task_batch, steps):
    run = make_run(task_batch, steps, **learner)
    assert predict_peak_memory(run, dataset.input_shape) == measured(run, dataset)


def test_equals_the_measurement_of_a_warm_start_of_one_task(dataset):
    run = make_run(1, 4, warm_start=True, task_pool=1)
    assert predict_peak_memory(run, dataset.input_shape) == measured(run, dataset)


def test_equals_the_measurement_of_augmented_photographs(dataset):
    small = make_run(3, 4)
    photographs = small.data.model_copy(update={"name": "fc100"})
    learner = small.learner.model_copy(update={"augment": True})
    run = small.model_copy(update={"data": photographs, "learner": learner})
    assert predict_peak_memory(run, dataset.input_shape) == measured(run, dataset)


def test_equals_the_measurement_of_more_ways_in_training(dataset):
    small = make_run(3, 4)
    run = small.model_copy(update={"data": small.data.model_copy(update={"train_ways": 7})})
    assert predict_peak_memory(run, dataset.input_shape) == measured(run, dataset)
    assert predict_peak_memory(run) > predict_peak_memory(small)


def test_equals_the_measurement_in_regression():
    run = RunConfig(
        data=DataConfig(name="sinusoid", ways=1, shots=4, queries=6),
        learner=LearnerConfig(backbone="mlp", inner_lr=0.1, task_batch=3),
        training=TrainingConfig(iterations=3),
    )
    assert predict_peak_memory(run) == measured(run, data.load("sinusoid", None))


def step_peak(run, shape):
    """Measure a complete step after a first one, without shortcuts."""
    trainer = MetaTrainer(run, ShapeDataset(shape), "cpu")
    trainer.accumulate()
    trainer.optimizer.step()

    def step():
        metrics, end = trainer.accumulate()
        torch.stack([*metrics.values()])
        trainer.apply(end)

    return measure_peak(step, trainer.held_tensors, torch.device("cpu"))[1]


def predicted_without_shortcuts(run, shape):
    """The prediction without shortcuts, on fake tensors."""
    with fake_tensors():
        return step_peak(run, shape)


LEARNER_OPTIONS = {
    "feature_reuse": [True, False],
    "first_order": [False, True],
    "filters": [1, 4, 8],
    "norm": ["batch", "frozen", "group"],
    "precision": ["float32", "bfloat16"],
    "head": ["linear", "mlp", "last_block"],
    "head_width": [2, 64],
    "feature_scaling": ["none", "sqrt_dim", "standardize"],
    "ridge": [0.0, 0.1],
    "curvature": ["hessian", "gauss_newton"],
    "schedule": ["constant", "cosine"],
    "weight_decay": [0.0, 0.1],
    "augment": [False, True],
    # Also more than the shortcuts simulate.
    "inner_steps": range(7),
    "cg_steps": range(6),
    "task_batch": range(1, 4),
    "chunk": [None, 6, 12],
    "task_pool": [None, 4, 9],
    "warm_start": [False, True],
}


@st.composite
def runs(draw, algorithm, backbone):
    """Random runs of an algorithm. Options that conflict with earlier ones are skipped."""
    few = st.integers(1, 3)
    shape = {"shots": draw(few), "queries": draw(few)}
    if backbone == "mlp":
        episode = DataConfig(name="sinusoid", ways=1, **shape)
    else:
        # Only photographs can be augmented. Training may use more ways.
        ways = {"ways": draw(st.integers(2, 4)), "train_ways": draw(st.sampled_from([None, 5]))}
        episode = DataConfig(name="fc100", **ways, **shape)
    learner = {"algorithm": algorithm, "backbone": backbone}
    options = dict(LEARNER_OPTIONS)
    if backbone == "resnet12":
        options["filters"] = [2, 4]  # with a single filter the prediction is not exact
        learner["filters"] = 4
    try:
        run = RunConfig(data=episode, learner=LearnerConfig(**learner))
    except ValueError:
        episode = episode.model_copy(update={"train_ways": None})
        run = RunConfig(data=episode, learner=LearnerConfig(**learner))
    for name in draw(st.permutations([*options])):
        more = learner | {name: draw(st.sampled_from(options[name]))}
        with suppress(ValueError):
            run, learner = RunConfig(data=episode, learner=LearnerConfig(**more)), more
    return run


ALGORITHMS = ["memory_reduced", "anil", "itd_bio", "maml"]


def check_against_the_real_step(algorithm, backbone, examples):
    run = examples.draw(runs(algorithm, backbone))
    side = examples.draw(st.sampled_from([16, 20]))
    channels = examples.draw(st.sampled_from([1, 3]))
    shape = (1,) if backbone == "mlp" else (channels, side, side)
    predicted, measured = predict_peak_memory(run, shape), step_peak(run, shape)
    if backbone == "resnet12" and channels == 1:
        assert predicted == pytest.approx(measured, rel=0.005)  # documented as not exact
    else:
        assert predicted == measured


@pytest.mark.parametrize("backbone", ["conv4", "mlp"])
@settings(max_examples=4)
@given(algorithm=st.sampled_from(ALGORITHMS), examples=st.data())
def test_equals_the_real_step_for_random_fields(backbone, algorithm, examples):
    check_against_the_real_step(algorithm, backbone, examples)


@pytest.mark.thorough
@pytest.mark.parametrize("backbone", ["conv4", "resnet12", "mlp"])
@pytest.mark.parametrize("algorithm", [*ALGORITHMS])
@settings(max_examples=10)
@given(examples=st.data())
def test_equals_the_real_step_for_many_random_fields(algorithm, backbone, examples):
    check_against_the_real_step(algorithm, backbone, examples)


# Cases where PyTorch's fake kernels differ from the CPU kernels.
@pytest.mark.parametrize(
    "norm",
    [
        "batch",
        pytest.param("group", marks=pytest.mark.thorough),
        pytest.param("frozen", marks=pytest.mark.thorough),
    ],
)
@pytest.mark.parametrize(
    "learner", [{"precision": "bfloat16"}, {"head": "last_block"}], ids=["bfloat16", "last block"]
)
def test_equals_the_real_step_of_resnet12(norm, learner):
    run = make_run(2, 1, backbone="resnet12", norm=norm, **learner)
    assert predict_peak_memory(run, (1, 16, 16)) == step_peak(run, (1, 16, 16))


@pytest.mark.thorough
@pytest.mark.parametrize("backbone", ["conv4", "mlp"])
@pytest.mark.parametrize("algorithm", [*ALGORITHMS])
@settings(max_examples=2)
@given(examples=st.data())
def test_shortcuts_are_exact(algorithm, backbone, examples):
    run = examples.draw(runs(algorithm, backbone))
    shape = (1,) if backbone == "mlp" else (1, 16, 16)
    assert predict_peak_memory(run, shape) == predicted_without_shortcuts(run, shape)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("learner", "tasks", "steps"),
    [
        ({"algorithm": "maml"}, 2, 6),
        ({"algorithm": "maml", "norm": "group", "head": "mlp"}, 4, 1),
        ({"algorithm": "maml", "backbone": "resnet12"}, 2, 1),
        ({"algorithm": "anil", "feature_reuse": False}, 2, 8),
        ({"algorithm": "itd_bio", "head": "last_block"}, 2, 8),
        ({"head": "mlp"}, 2, 8),
    ],
)
def test_shortcuts_are_exact_where_they_save_most(learner, tasks, steps):
    run = make_run(tasks, steps, **learner)
    assert predict_peak_memory(run, (1, 16, 16)) == predicted_without_shortcuts(run, (1, 16, 16))


@pytest.mark.thorough
@pytest.mark.parametrize(
    "learner",
    [
        {},
        {"chunk": 6},
        {"norm": "group", "chunk": 4},
        {"norm": "frozen", "chunk": 4},
        {"algorithm": "maml"},
        {"algorithm": "anil", "feature_reuse": False, "inner_steps": 6},
        {"task_pool": 5, "warm_start": True, "head": "mlp"},
    ],
)
def test_the_peak_of_a_trial_is_predicted(dataset, learner):
    run = make_run(3, 4, **learner)
    training = TrainingConfig(iterations=3, evaluations=1, val_tasks=6)
    run = run.model_copy(update={"training": training})
    with LiveBytes() as live:
        trainer = MetaTrainer(run, dataset, "cpu")
        trainer.train_to_evaluation()
    others = 8 * run.training.val_tasks  # scores of earlier validation tasks
    predicted = predict_trial_memory(run, dataset.input_shape).whole
    assert live.peak - others <= predicted <= live.peak + others


@pytest.mark.thorough
@pytest.mark.parametrize(
    "learner", [{}, {"norm": "group"}, {"algorithm": "anil"}, {"algorithm": "maml"}], ids=str
)
def test_the_estimate_from_few_tasks_is_close_for_many(learner):
    learner = LearnerConfig(filters=8, task_batch=16, inner_steps=2, cg_steps=2, **learner)
    run = RunConfig(data=DataConfig(ways=3, shots=2, queries=3, eval_queries=1), learner=learner)
    estimate = predict_trial_memory(run, (1, 28, 28)).step
    assert estimate == pytest.approx(predict_peak_memory(run, (1, 28, 28)), rel=0.01)


@pytest.mark.thorough
@pytest.mark.parametrize("norm", ["batch", "frozen"])
def test_a_validation_of_many_tasks_is_extrapolated_from_few(norm):
    learner = LearnerConfig(filters=2, task_batch=50, inner_steps=2, norm=norm)
    run = RunConfig(data=DataConfig(ways=3, shots=2, queries=2, eval_queries=2), learner=learner)

    def peak(run):
        simulated.append(run.learner.task_batch)
        return prediction._validation_peak(run, (1, 16, 16))

    simulated: list[int] = []
    assert prediction._by_tasks(peak, run) == prediction._validation_peak(run, (1, 16, 16))
    assert max(simulated) < 50


def test_zeros_need_the_same_memory_as_data(dataset):
    run = make_run(2, 3)
    assert measured(run, ShapeDataset(dataset.input_shape)) == measured(run, dataset)


def test_does_not_change_the_random_generator(dataset):
    before = torch.get_rng_state()
    predict_peak_memory(make_run(1, 1), dataset.input_shape)
    assert torch.equal(torch.get_rng_state(), before)


def test_input_shapes_match_the_data(data_root):
    for name in ("glyphs", "sinusoid"):
        assert data.load(name, data_root).input_shape == data.DATA_SETS[name].input_shape
