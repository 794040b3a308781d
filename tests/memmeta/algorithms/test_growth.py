"""Growth of the peak memory with K, for each method."""

import pytest
import torch

from memmeta.algorithms import ALGORITHMS
from memmeta.algorithms.inner_loop import predict
from memmeta.config import LearnerConfig
from memmeta.peak_memory import measure_peak
from tests.memmeta.algorithms.oracle import make_episodes, make_model

CPU = torch.device("cpu")


def peak(inner_steps, tasks=1, **changes):
    """Peak memory of one step in bytes, including the images."""
    config = LearnerConfig(filters=4, head_width=16, inner_steps=inner_steps, **changes)
    model, batch = make_model(config, 3), make_episodes(tasks, 3, 3, 2, seed=0)
    backward = ALGORITHMS[config.algorithm].backward
    backward(model, batch, config)  # allocates the gradients
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    held = [*model.parameters(), *gradients, *batch]
    _, bytes_held = measure_peak(lambda: backward(model, batch, config), lambda: held, CPU)
    return bytes_held


@pytest.mark.parametrize("head", ["linear", "mlp", "last_block"])
@pytest.mark.parametrize("norm", ["batch", "group", "frozen"])
def test_algorithm_1_is_constant_in_k_and_n_for_every_head(head, norm):
    peaks = {peak(k, head=head, norm=norm, cg_steps=k) for k in (2, 5, 20)}
    assert len(peaks) == 1


@pytest.mark.parametrize("algorithm", ["anil", "itd_bio"])
@pytest.mark.parametrize("head", ["linear", "mlp", "last_block"])
def test_naive_variants_store_the_features_graph_of_each_step_and_cached_ones_do_not(
    algorithm, head
):
    naive = [peak(k, algorithm=algorithm, feature_reuse=False, head=head) for k in (1, 5, 9)]
    cached = [peak(k, algorithm=algorithm, head=head) for k in (1, 5, 9)]
    assert naive[0] == cached[0]
    step = (naive[2] - naive[1]) / 4
    assert step == pytest.approx((naive[1] - naive[0]) / 4, rel=0.1)
    images = 9 * 16 * 16 * 8
    assert step > 4 * images  # at least the four channels of the first convolution's output
    assert cached[2] - cached[1] < 0.2 * (naive[2] - naive[1])


@pytest.mark.parametrize("algorithm", ["anil", "itd_bio"])
@pytest.mark.parametrize("head", ["mlp", pytest.param("last_block", marks=pytest.mark.thorough)])
def test_differentiating_through_a_deeper_head_grows_with_k(algorithm, head):
    unrolled = [peak(k, algorithm=algorithm, head=head) for k in (20, 40, 80)]
    assert unrolled[0] < unrolled[1] < unrolled[2]
    assert unrolled[2] - unrolled[1] == pytest.approx(2 * (unrolled[1] - unrolled[0]), rel=0.1)
    first_order = {peak(k, algorithm=algorithm, head=head, first_order=True) for k in (10, 40)}
    assert len(first_order) == 1


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_maml_grows_faster_than_naive_anil(head):
    maml = [peak(k, algorithm="maml", head=head) for k in (1, 3, 5)]
    anil = [peak(k, algorithm="anil", feature_reuse=False, head=head) for k in (1, 3, 5)]
    assert maml[2] - maml[1] == pytest.approx(maml[1] - maml[0], rel=0.1)
    assert maml[2] - maml[0] > 1.5 * (anil[2] - anil[0])


@pytest.mark.parametrize("algorithm", [*ALGORITHMS])
@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_prediction_stores_no_graph_and_is_constant_in_k(algorithm, head):
    def prediction_peak(inner_steps):
        config = LearnerConfig(algorithm=algorithm, head=head, filters=4, inner_steps=inner_steps)
        model, batch = make_model(config, 3), make_episodes(2, 3, 3, 2, seed=0)
        scores, bytes_held = measure_peak(
            lambda: predict(model, batch, config), lambda: [*model.parameters(), *batch], CPU
        )
        assert not scores.requires_grad
        assert all(p.grad is None for p in model.parameters())
        return bytes_held

    assert prediction_peak(2) == prediction_peak(10)
