"""The memory-saving form of Conv4's blocks, compared with PyTorch's layers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memmeta.config import LearnerConfig
from memmeta.networks import fused, models, norms
from memmeta.networks.features import backbone_features
from memmeta.peak_memory import measure_peak

CPU = torch.device("cpu")


def make_network(norm, filters, channels, size, seed=0):
    """A network whose norms have weights of both signs, and calibrated statistics if frozen."""
    torch.manual_seed(seed)
    config = LearnerConfig(filters=filters, norm=norm)
    network = models.build_backbone(config, (channels, size, size)).double()
    norms.calibrate(network, torch.randn(20, channels, size, size, dtype=torch.float64))
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() == 1:
                parameter.normal_()
    return network


def by_layers(network, images):
    return torch.stack([network(task) for task in images])


def gradients(network, features, cotangent):
    return torch.autograd.grad(features, list(network.parameters()), cotangent)


@settings(max_examples=40)
@given(
    norm=st.sampled_from(["batch", "frozen", "group"]),
    filters=st.sampled_from([2, 8]),
    channels=st.sampled_from([1, 3]),
    size=st.sampled_from([16, 21, 33]),
    sets=st.integers(1, 4),
    n=st.integers(2, 7),
    at_once=st.integers(1, 30),
    seed=st.integers(0, 10**6),
)
def test_features_and_gradients_equal_those_of_the_layers(
    norm, filters, channels, size, sets, n, at_once, seed
):
    network = make_network(norm, filters, channels, size, seed)
    images = torch.randn(sets, n, channels, size, size, dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(fused._AT_ONCE, "cpu", at_once * filters * size * size * 8)
        fused_features = backbone_features(network, images)
        expected = by_layers(network, images)
        torch.testing.assert_close(fused_features, expected)
        cotangent = torch.randn_like(expected)
        ours, theirs = (gradients(network, x, cotangent) for x in (fused_features, expected))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


def test_single_precision_is_as_accurate_as_the_layers():
    exact = make_network("batch", 16, 3, 32)
    images = torch.randn(2, 10, 3, 32, 32, dtype=torch.float64) + 1
    expected = by_layers(exact, images)
    single = make_network("batch", 16, 3, 32).float()

    def error(features):
        return (features.double() - expected).norm() / expected.norm()

    ours = error(backbone_features(single, images.float()))
    assert ours < 2 * error(by_layers(single, images.float())) < 1e-5


@pytest.mark.parametrize("norm", ["batch", "frozen", "group"])
def test_half_precision_is_as_accurate_as_the_layers_under_autocast(norm):
    exact = make_network(norm, 16, 3, 32)
    single = make_network(norm, 16, 3, 32).float()
    images = torch.randn(2, 10, 3, 32, 32, dtype=torch.float64)
    expected = by_layers(exact, images)
    cotangent = torch.randn_like(expected)
    true = gradients(exact, expected, cotangent)

    def errors(features):
        with torch.autocast("cpu", torch.bfloat16):
            half = features(single, images.float())
        rounded = gradients(single, half, cotangent.to(half.dtype))
        pairs = [(half, expected), *zip(rounded, true, strict=True)]
        return torch.stack([(a.double() - b).norm() / b.norm() for a, b in pairs])

    ours, theirs = errors(backbone_features), errors(by_layers)
    assert (ours > 1e-4).any(), "no operation ran in half precision"
    assert ours.mean() < 1.1 * theirs.mean() < 0.2


def test_images_too_wide_for_one_byte_positions():
    network = make_network("batch", 2, 1, 16)
    images = torch.randn(1, 2, 1, 16, 300, dtype=torch.float64)
    fused_features, expected = (f(network, images) for f in (backbone_features, by_layers))
    cotangent = torch.randn_like(expected)
    ours, theirs = (gradients(network, x, cotangent) for x in (fused_features, expected))
    torch.testing.assert_close(ours, theirs)


def test_the_first_blocks_give_maps():
    network = make_network("batch", 4, 1, 16)
    images = torch.randn(2, 3, 1, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(
        backbone_features(network[:3], images), by_layers(network[:3], images)
    )


def test_a_constant_channel_has_finite_gradients():
    network = make_network("batch", 4, 1, 16)
    with torch.no_grad():
        network[0][0].weight[0] = 0
        network[1][1].weight[1] = 0
    features = backbone_features(network, torch.randn(2, 3, 1, 16, 16, dtype=torch.float64))
    for gradient in gradients(network, features, torch.ones_like(features)):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("norm", ["batch", "frozen", "group"])
def test_stores_about_half_as_much_as_the_layers(norm, monkeypatch):
    # Small pieces, so that temporaries do not matter.
    monkeypatch.setitem(fused._AT_ONCE, "cpu", 10**6)
    network = make_network(norm, 16, 3, 32).float()
    images = torch.randn(4, 50, 32, 32, 3).movedim(-1, 2)

    def peak(features):
        def passes():
            features(network, images).sum().backward()

        passes()
        held = [images, *(p.grad for p in network.parameters()), *network.parameters()]
        return measure_peak(passes, lambda: held, CPU)[1]

    assert peak(backbone_features) < 0.62 * peak(by_layers)


def test_without_gradients_little_more_than_images_and_maxima_is_stored():
    network = make_network("batch", 16, 3, 64).float()
    images = torch.randn(4, 50, 64, 64, 3).movedim(-1, 2)
    maxima = 4 * 50 * 16 * 32 * 32 * 4
    with torch.no_grad():
        _, peak = measure_peak(lambda: backbone_features(network, images), lambda: [images], CPU)
    assert peak < images.nbytes + 2 * maxima + 3 * fused._AT_ONCE["cpu"]


def test_second_derivatives_are_refused():
    network = make_network("batch", 2, 1, 16)
    features = backbone_features(network, torch.randn(1, 2, 1, 16, 16, dtype=torch.float64))
    first = torch.autograd.grad(features.sum(), list(network.parameters()), create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first[0].sum().backward()
