import pytest
import torch
from torch import nn
from torch.func import vmap

from memmeta.config import LearnerConfig
from memmeta.networks import models, norms
from memmeta.networks.features import backbone_features


def parameter_count(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("config", "shape", "features", "parameters"),
    [
        (LearnerConfig(filters=64), (3, 32, 32), 256, 112_832),
        (LearnerConfig(filters=32), (3, 84, 84), 800, 28_768),
        (LearnerConfig(backbone="resnet12"), (3, 84, 84), 640, 12_424_320),
        (LearnerConfig(backbone="mlp"), (1,), 40, 80 + 1640),
    ],
)
def test_sizes_match_the_literature(config, shape, features, parameters):
    network = models.build_backbone(config, shape)
    assert network(torch.zeros(2, *shape)).shape == (2, features)
    assert parameter_count(network) == parameters


@pytest.mark.parametrize("backbone", ["conv4", "resnet12"])
@pytest.mark.parametrize("norm", ["batch", "group", "frozen"])
def test_batch_norm_mixes_images_of_a_task_only_and_other_norms_mix_no_images(backbone, norm):
    images = torch.randn(2, 6, 1, 16, 16)
    network = models.build_backbone(
        LearnerConfig(backbone=backbone, filters=4, norm=norm), (1, 16, 16)
    )
    together = backbone_features(network, images)
    alone = torch.cat([backbone_features(network, task[None]) for task in images])
    torch.testing.assert_close(together, alone)
    if norm != "batch":
        one_by_one = vmap(lambda image: network(image[None])[0])(images[0])
        torch.testing.assert_close(together[0], one_by_one)


def calibrated(size, images):
    network = models.build_backbone(LearnerConfig(filters=size, norm="frozen"), images.shape[1:])
    norms.calibrate(network, images)
    return network


def test_calibrated_norms_equal_batch_norm_on_the_calibration_images():
    torch.manual_seed(0)
    images = 3 * torch.randn(40, 1, 16, 16) + 1
    frozen = calibrated(4, images)
    batch = models.build_backbone(LearnerConfig(filters=4, norm="batch"), (1, 16, 16))
    batch.load_state_dict(
        {name: tensor for name, tensor in frozen.state_dict().items() if name in batch.state_dict()}
    )
    # The running variance is unbiased, which differs by 1 in 40 in the last layer.
    torch.testing.assert_close(frozen(images), batch(images), rtol=0.1, atol=0.05)


def test_frozen_norms_keep_their_statistics_and_give_them_no_gradient():
    images = torch.randn(10, 1, 16, 16)
    network = calibrated(4, images)
    before = [buffer.clone() for buffer in network.buffers()]
    network.train()
    network(torch.randn(10, 1, 16, 16) * 9).sum().backward()
    for old, buffer in zip(before, network.buffers(), strict=True):
        assert torch.equal(old, buffer)
        assert not buffer.requires_grad
    assert all(p.grad is not None for p in network.parameters())


def test_calibration_does_not_change_other_networks():
    network = nn.Sequential(nn.BatchNorm2d(3))
    before = network.state_dict()["0.running_mean"].clone()
    norms.calibrate(network, torch.randn(4, 3, 2, 2))
    assert torch.equal(network.state_dict()["0.running_mean"], before)
