"""Chunks do not change hypergradients and predictions, and reduce memory."""

import pytest
import torch

from memmeta.algorithms import ALGORITHMS
from memmeta.algorithms.inner_loop import predict
from memmeta.config import DataConfig, LearnerConfig, RunConfig
from memmeta.memory.prediction import predict_peak_memory
from memmeta.peak_memory import measure_peak
from tests.memmeta.algorithms.oracle import make_episodes, make_model

CPU = torch.device("cpu")

WAYS, SHOTS, QUERIES = 3, 2, 4  # support sets of 6 images, query sets of 12, tasks of 18

CASES = [
    *({"norm": "batch", "chunk": chunk} for chunk in (12, 24, 36, 1200)),
    *({"norm": norm, "chunk": chunk} for norm in ("group", "frozen") for chunk in (1, 5, 12, 1000)),
    *({"head": head, "chunk": 12} for head in ("mlp", "last_block")),
    *({"algorithm": a, "chunk": c} for a in ("anil", "itd_bio") for c in (18, 36)),
    {"algorithm": "anil", "feature_reuse": False, "chunk": 18},
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_gradient_is_equal_up_to_rounding(case):
    batch = make_episodes(5, WAYS, SHOTS, QUERIES, seed=1)

    def step(changes):
        config = LearnerConfig(filters=4, inner_steps=3, inner_lr=0.1, cg_steps=4, **changes)
        model = make_model(config, WAYS)
        if config.norm == "frozen":
            model.calibrate(batch.support.flatten(0, 1))
        outcome = ALGORITHMS[config.algorithm].backward(model, batch, config)
        return [p.grad for p in model.learned()], outcome.diagnostics

    whole, diagnostics = step({name: value for name, value in case.items() if name != "chunk"})
    chunked, chunked_diagnostics = step(case)
    for a, b in zip(chunked, whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    for a, b in zip(chunked_diagnostics, diagnostics, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)  # accuracies are float32


def predictions(batch, changes):
    """Scores of the query sets, and the peak memory of computing them."""
    config = LearnerConfig(filters=16, inner_steps=3, inner_lr=0.1, **changes)
    model = make_model(config, WAYS)
    if config.norm == "frozen":
        model.calibrate(batch.support.flatten(0, 1))
    return measure_peak(
        lambda: predict(model, batch, config), lambda: [*model.parameters(), *batch], CPU
    )


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("tasks", [1, 5])
def test_predictions_are_equal_up_to_rounding(case, tasks):
    batch = make_episodes(tasks, WAYS, SHOTS, 2 * QUERIES, seed=1)  # sets larger than a chunk
    whole, _ = predictions(batch, {name: v for name, v in case.items() if name != "chunk"})
    chunked, _ = predictions(batch, case)
    torch.testing.assert_close(chunked, whole, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("norm", ["group", "frozen"])
def test_chunks_reduce_the_memory_of_predictions(norm):
    batch = make_episodes(1, WAYS, SHOTS, 20, seed=1)
    _, whole = predictions(batch, {"norm": norm})
    _, chunked = predictions(batch, {"norm": norm, "chunk": 6})
    assert chunked < 0.5 * whole


def peak(tasks, shots, chunk, norm="group"):
    """Peak memory for 32x32 images, without the stored images."""
    config = RunConfig(
        data=DataConfig(ways=5, shots=shots, queries=5),
        learner=LearnerConfig(filters=16, norm=norm, task_batch=tasks, chunk=chunk, inner_steps=2),
    )
    return predict_peak_memory(config, (3, 32, 32)) - tasks * 5 * (shots + 5) * 3 * 32 * 32


def test_maml_processes_one_task_at_a_time():
    def maml(tasks):
        config = RunConfig(
            data=DataConfig(ways=3, shots=1, queries=1),
            learner=LearnerConfig(algorithm="maml", filters=8, task_batch=tasks, inner_steps=2),
        )
        return predict_peak_memory(config, (1, 32, 32))

    assert maml(6) < 1.2 * maml(1)
    with pytest.raises(ValueError, match="chunk is not for maml"):
        LearnerConfig(algorithm="maml", chunk=6)


@pytest.mark.thorough
@pytest.mark.parametrize(("norm", "chunk"), [("batch", 25), ("group", 10)])
def test_with_chunks_the_peak_hardly_grows_with_task_batch(norm, chunk):
    # Only the features and the head of each task grow.
    assert peak(4, 5, chunk, norm) < 1.1 * peak(1, 5, chunk, norm)
    assert peak(4, 5, None, norm) > 3 * peak(1, 5, None, norm)


@pytest.mark.thorough
def test_with_chunks_the_peak_hardly_grows_with_shots():
    assert peak(1, 20, 10) < 1.2 * peak(1, 1, 10)
    assert peak(1, 20, None) > 3 * peak(1, 1, None)


@pytest.mark.thorough
def test_the_peak_falls_with_the_chunk_size():
    whole, half, tenth = (peak(2, 5, chunk) for chunk in (None, 25, 10))
    assert half < 0.5 * whole
    assert tenth < 0.5 * half


@pytest.mark.parametrize(
    ("learner", "message"),
    [
        ({"chunk": 10}, "whole support sets of 25 and whole query sets of 50 images"),
        ({"chunk": 25}, "whole support sets of 25 and whole query sets of 50 images"),
        ({"algorithm": "anil", "chunk": 50}, "anil differentiates through a task as a whole, 75"),
        ({"algorithm": "itd_bio", "norm": "group", "chunk": 10}, "itd_bio differentiates"),
    ],
)
def test_a_chunk_that_would_change_the_gradient_is_refused(learner, message):
    with pytest.raises(ValueError, match=message):
        RunConfig(data=DataConfig(shots=5, queries=10), learner=LearnerConfig(**learner))
    RunConfig(
        data=DataConfig(shots=5, queries=10), learner=LearnerConfig(**learner | {"chunk": 150})
    )
