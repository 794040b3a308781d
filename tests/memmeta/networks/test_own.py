"""Networks of timm and of users as backbones: what they see, what learns, and what is refused."""

import sys

import pytest
import torch
from PIL import Image

from memmeta.config import LearnerConfig, RunConfig, parse
from memmeta.errors import InputError
from memmeta.networks import models
from memmeta.networks.own import build, parameter_blocks
from memmeta.networks.timm_models import import_timm
from tests.memmeta.networks.nets import HERE, Direct, convolutional

timm = import_timm()

IMAGES = (3, 20, 20)


def own(name, **fields):
    return LearnerConfig(backbone=f"{HERE}:{name}", **fields)


def learned_names(backbone):
    return {name for name, p in backbone.network.named_parameters() if p.requires_grad}


def test_a_function_gets_the_shape_of_inputs_and_its_arguments():
    backbone = build(own("convolutional", backbone_args={"width": 6}, input_size=32), IMAGES)
    assert backbone.input_shape == (3, 32, 32)
    assert backbone(torch.randn(2, 3, 32, 32)).shape == (2, 12)
    assert backbone.network[0].in_channels == 3


def test_a_function_is_recorded_by_its_import_path():
    learner = LearnerConfig(backbone=convolutional, backbone_args={"width": 6})
    assert learner == own("convolutional", backbone_args={"width": 6})
    assert LearnerConfig(backbone=Direct).backbone == f"{HERE}:Direct"
    with pytest.raises(InputError, match=r"backbone: .*define it in a module"):
        parse(LearnerConfig, {"backbone": lambda shape: convolutional(shape)}, "train")


def test_networks_stay_in_evaluation_mode():
    backbone = build(own("convolutional"), IMAGES)
    images = torch.randn(4, *IMAGES)
    expected = backbone(images)
    statistics = backbone.network[1].running_mean.clone()
    backbone.train()
    assert torch.equal(backbone(images), expected)
    assert torch.equal(backbone.network[1].running_mean, statistics)


def timm_model(name, size):
    """A model for images of a size, and those images as timm prepares them from `stored`."""
    torch.manual_seed(0)
    model = models.build_model(LearnerConfig(backbone=f"timm/{name}"), (3, size, size), 5)
    # Away from black and white, where Pillow clips between the two passes of a resize.
    stored = torch.randint(60, 200, (2, 3, size, size, 3), dtype=torch.uint8)
    config = timm.data.resolve_model_data_config(model.backbone.network) | {"crop_pct": 1.0}
    transform = timm.data.create_transform(**config)
    images = [transform(Image.fromarray(image.numpy())) for image in stored.flatten(0, 1)]
    return model, stored, torch.stack(images)


@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_the_features_of_a_timm_model_are_those_of_timm(name):
    model, stored, images = timm_model(name, 160)
    with torch.no_grad():
        expected = model.backbone.network(images)
        features = model.features(stored).flatten(0, 1)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])  # bicubic and bilinear
@pytest.mark.parametrize("size", [40, 200])
def test_images_are_resized_as_timm_does(name, size):
    model, stored, images = timm_model(name, size)
    # Pillow rounds to whole levels after each of two passes; a level is 2 / 255 here.
    difference = (model.network_input(stored).flatten(0, 1) - images).abs()
    assert difference.max() < 2.5 * 2 / 255
    assert difference.mean() < 0.5 * 2 / 255


@pytest.mark.parametrize("name", ["timm/test_vit", "timm/test_resnet"])
def test_another_input_size_and_greyscale_images(name):
    backbone = build(LearnerConfig(backbone=name, input_size=64), (1, 28, 28))
    assert backbone.input_shape == (3, 64, 64)
    stored = torch.randint(0, 256, (2, 3, 28, 28, 1), dtype=torch.uint8)
    images = backbone.preprocessing(stored, None)
    assert images.shape == (2, 3, 3, 64, 64)
    assert backbone(images.flatten(0, 1)).isfinite().all()


@pytest.mark.parametrize(
    ("name", "blocks", "last"),
    [
        ("test_vit", 7, "blocks.5."),
        ("test_resnet", 5, "layer4."),
        ("test_convnext", 5, "stages.3."),
    ],
)
def test_the_final_norm_of_a_timm_model_belongs_to_its_last_block(name, blocks, last):
    network = timm.create_model(name, num_classes=0)
    found = parameter_blocks(network)
    assert len(found) == blocks
    assert sorted(name for names in found for name in names) == sorted(
        n for n, _ in network.named_parameters()
    )
    others = [n for n in found[-1] if not n.startswith(last)]
    assert all("norm" in n for n in others)


@pytest.mark.parametrize(
    ("train_last", "learned"),
    [
        (0, set()),
        (1, {"second.weight", "second.bias", "norm.weight", "norm.bias"}),
        (None, {"scale", "first.weight", "first.bias", "second.weight", "second.bias",
                "norm.weight", "norm.bias"}),
    ],
)  # fmt: skip
def test_the_last_blocks_learn(train_last, learned):
    backbone = build(own("Direct", train_last=train_last), (5,))
    assert learned_names(backbone) == learned


def test_parameters_without_influence_do_not_learn():
    backbone = build(own("Direct", backbone_args={"unused": True}), (5,))
    assert not {name for name in learned_names(backbone) if name.startswith("unused")}
    assert learned_names(backbone)


def test_frozen_blocks_keep_no_activations():
    def graph(train_last):
        backbone = build(LearnerConfig(backbone="timm/test_vit", train_last=train_last), IMAGES)
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.nbytes), lambda t: t):
            backbone(torch.randn(4, *backbone.input_shape))
        return sum(kept)

    assert graph(0) == 0
    assert 0 < graph(1) < 0.3 * graph(None)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("in place", "changes its input in place"),
        ("random", "other features at each call"),
        ("centred", "mixes the images of a batch"),
        ("map", r"shape \[3, 4, 18, 18\], not to a feature vector"),
        ("pair", "returns a tuple, not a tensor"),
        ("half", "torch.float16"),
        ("infinite", "not finite"),
        ("detached", "without a gradient"),
        ("raises", "cannot take inputs of shape .* RuntimeError: mat1"),
    ],
)
def test_a_network_that_breaks_an_assumption_is_refused_in_one_line(how, message):
    with pytest.raises(InputError, match=f"backbone .*nets:Failing: .*{message}") as refused:
        build(own("Failing", backbone_args={"how": how}), IMAGES)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("learner", "message"),
    [
        (own("batch_statistics"), "BatchNorm without running statistics"),
        (own("not_a_module"), "an nn.Module is expected, got a tuple"),
        (own("convolutional", backbone_args={"depth": 3}), "unexpected keyword argument 'depth'"),
        (own("Direct", train_last=3), "train_last 3: there are 2 blocks"),
        (LearnerConfig(backbone="timm/resnet81"), r"no model resnet81 \(did you mean resnet18\?"),
        (
            LearnerConfig(backbone="timm/test_vit", backbone_args={"checkpoint_path": "x.pt"}),
            "backbone_args: checkpoint_path cannot be set",
        ),
        (LearnerConfig(backbone="timm/test_vit", input_size=50), "divisible by patch size"),
        (LearnerConfig(backbone="timm/mixer_s16_224", input_size=32), "cannot take inputs"),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_line(learner, message):
    with pytest.raises(InputError, match=message) as refused:
        build(learner, IMAGES)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"train_last": 1, "input_size": 64}, "train_last and input_size: not for backbone conv4"),
        ({"backbone_args": {"a": 1}, "backbone": "mlp"}, "backbone_args: not for backbone mlp"),
        ({"backbone": "timm/resnet18", "algorithm": "maml"}, "its backbone is conv4 or resnet12"),
        ({"backbone": "timm/resnet18", "head": "last_block"}, "its head is linear or mlp"),
        ({"backbone": "timm/resnet18", "norm": "group"}, "leave norm at batch"),
        ({"backbone": "timm/resnet18", "precision": "bfloat16"}, "bfloat16 is for"),
        ({"backbone": "timm/resnet18", "weights": "nowhere.pt"}, "nowhere.pt cannot be read"),
        ({"backbone": f"{HERE}:Direct", "weights": "timm"}, "weights timm are for"),
        ({"backbone": "timm/resnet18", "backbone_args": {"a": {1}}}, "backbone_args"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(fields, message):
    with pytest.raises(InputError, match=message):
        parse(LearnerConfig, fields, "study.yaml")


def test_points_and_images_are_told_apart():
    points = {"data": {"name": "sinusoid", "ways": 1}, "training": {"iterations": 1}}
    with pytest.raises(InputError, match="input_size is for images, not for sinusoid"):
        parse(RunConfig, points | {"learner": own("Direct", input_size=4)}, "a")
    with pytest.raises(InputError, match="takes images, and the data are numbers"):
        parse(RunConfig, points | {"learner": LearnerConfig(backbone="timm/resnet18")}, "a")
    assert RunConfig(**points, learner=own("Direct"))


def test_timm_is_optional(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    learner = LearnerConfig(backbone="timm/resnet18")
    with pytest.raises(InputError, match=r"pip install 'memmeta\[timm\]'"):
        build(learner, IMAGES)
