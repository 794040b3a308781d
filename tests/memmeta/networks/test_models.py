import pytest
import torch

from memmeta.config import LearnerConfig
from memmeta.networks import models


def names(module):
    return {name for name, _ in module.named_parameters()}


@pytest.mark.parametrize("backbone", ["conv4", "resnet12"])
@pytest.mark.parametrize("head", ["linear", "mlp", "last_block"])
def test_every_layer_is_in_the_backbone_or_in_the_head(backbone, head):
    config = LearnerConfig(backbone=backbone, filters=4, head=head, head_width=7)
    model = models.build_model(config, (3, 16, 16), 5)
    whole = models.build_model(config.model_copy(update={"head": "linear"}), (3, 16, 16), 5)
    d = {"conv4": 4, "resnet12": 40}[backbone] + 1
    top = d * 7 + 7 * 5 + 5 if head == "mlp" else 5 * d
    count = sum(p.numel() for p in model.parameters())
    assert count == sum(p.numel() for p in whole.backbone.parameters()) + top
    blocks = {name.split(".")[0] for name in names(model.backbone)}
    assert len(blocks) == (3 if head == "last_block" else 4)
    assert model.head.linear == (head == "linear")


@pytest.mark.parametrize("algorithm", ["memory_reduced", "itd_bio", "anil", "maml"])
def test_learned_and_adapted_parameters(algorithm):
    model = models.build_model(LearnerConfig(algorithm=algorithm, filters=4), (1, 16, 16), 3)
    learned, head = set(model.learned()), set(model.head.parameters())
    everything = set(model.parameters())
    assert learned == (everything if algorithm in ("anil", "maml") else everything - head)
    assert (head == everything) == (algorithm == "maml")


@pytest.mark.parametrize("head", ["linear", "mlp", "last_block"])
def test_initial_phi_repeats_the_parameters_of_the_head(head):
    model = models.build_model(LearnerConfig(head=head, filters=4), (1, 16, 16), 3)
    phi = model.initial_phi(2)
    expected = torch.cat([p.flatten() for p in model.head.parameters()])
    for task in phi.flatten(1):
        assert torch.equal(task, expected)


def test_the_initial_backbone_does_not_depend_on_the_head():
    backbones = []
    for head in ("linear", "mlp"):
        torch.manual_seed(0)
        model = models.build_model(LearnerConfig(head=head, filters=4), (1, 16, 16), 3)
        backbones.append(list(model.backbone.parameters()))
    for a, b in zip(*backbones, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("backbone", ["conv4", "resnet12"])
def test_half_precision_applies_to_the_backbone_only(backbone):
    images = torch.randn(2, 5, 3, 16, 16)

    def features(precision):
        torch.manual_seed(0)
        config = LearnerConfig(backbone=backbone, filters=8, norm="group", precision=precision)
        return models.build_model(config, (3, 16, 16), 5).features(images)

    half, whole = features("bfloat16"), features("float32")
    assert half.dtype == torch.float32
    assert 1e-4 < (half - whole).norm() / whole.norm() < 0.03
