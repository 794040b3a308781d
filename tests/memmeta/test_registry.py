"""Registered objects can be named in configs, and are used like the built-in ones."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch
from torch import nn

from memmeta import data
from memmeta.algorithms import ALGORITHMS, Algorithm
from memmeta.config import LearnerConfig, RunConfig, TrainingConfig, parse
from memmeta.data import DATA_SETS
from memmeta.data.sets.sinusoid import Sinusoid
from memmeta.data.sources import ImageSource
from memmeta.errors import InputError
from memmeta.memory.prediction import predict_peak_memory
from memmeta.networks import BACKBONES, HEADS, Backbone, HeadKind
from memmeta.networks.conv4 import ConvBlock
from memmeta.networks.models import build_model
from memmeta.registry import ImportPath, Registry, adopt_as, import_object
from memmeta.training import MetaTrainer

HERE = __name__


@pytest.fixture
def register(monkeypatch):
    """Register objects for one test."""

    def add(registry, name, what):
        monkeypatch.setattr(registry, "_objects", {**registry._objects})
        registry.register(name, what)

    return add


class Lines(Sinusoid):
    """Another data set: straight lines."""

    name = "lines"


LINES = Lines()


def read_stripes(root, split):
    del root
    generator = torch.Generator().manual_seed(len(split))
    for name in "abcdef":
        yield (
            name,
            torch.randint(0, 256, (30, 16, 16, 1), dtype=torch.uint8, generator=generator).numpy(),
        )


STRIPES = ImageSource("stripes", (1, 16, 16), read_stripes)


def two_blocks(input_shape, filters, norm):
    """Another backbone."""
    del norm
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(input_shape[0], filters, 3, padding=1), nn.MaxPool2d(2)),
        nn.Sequential(nn.Conv2d(filters, filters, 3, padding=1), nn.MaxPool2d(2)),
        nn.Flatten(),
    )


def conv_and_linear(input_shape, filters, norm):
    """A backbone that reuses Conv4's block."""
    del norm
    block = ConvBlock(input_shape[0], filters, "group")
    return nn.Sequential(block, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(filters, 7))


def wide_top(inputs, outputs, width):
    """Another head."""
    return nn.Sequential(nn.Linear(inputs, 2 * width), nn.Tanh(), nn.Linear(2 * width, outputs))


def negated(model, episodes, config, start=None):
    """Another algorithm: gradient ascent."""
    outcome = ALGORITHMS["memory_reduced"].backward(model, episodes, config, start)
    for parameter in model.learned():
        parameter.grad.neg_()
    return outcome


def trained(run, dataset):
    trainer = MetaTrainer(run, dataset, "cpu")
    trainer.train_to_evaluation()
    return trainer


@pytest.mark.parametrize("as_place", [True, False])
def test_a_registered_data_set_is_trained_on(register, tmp_path, as_place):
    register(DATA_SETS, "lines", ImportPath(f"{HERE}:LINES") if as_place else LINES)
    register(DATA_SETS, "stripes", ImportPath(f"{HERE}:STRIPES") if as_place else STRIPES)
    training = TrainingConfig(iterations=2, evaluations=1, val_tasks=2)
    lines = RunConfig(
        data={"name": "lines", "ways": 1},
        learner=LearnerConfig(backbone="mlp"),
        training=training,
    )
    assert lines.data.chance_level == pytest.approx(4.3, abs=0.5)
    assert trained(lines, data.load("lines", tmp_path)).done
    stripes = RunConfig(
        data={"name": "stripes", "ways": 3},
        learner=LearnerConfig(filters=2, task_batch=2),
        training=training,
    )
    assert trained(stripes, data.load("stripes", tmp_path)).done
    assert (tmp_path / "cache" / "stripes").is_dir()


def test_a_registered_backbone_is_built_with_every_head_and_predicted(register, run, dataset):
    register(BACKBONES, "two_blocks", Backbone(ImportPath(f"{HERE}:two_blocks"), blocks=2))
    for head in ("linear", "mlp", "last_block"):
        learner = run.learner.model_copy(update={"backbone": "two_blocks", "head": head})
        changed = run.model_copy(update={"learner": learner})
        trainer = trained(changed, dataset)
        shared = [p.shape for p in trainer.model.backbone.parameters()]
        assert len(shared) == (2 if head == "last_block" else 4)
    assert predict_peak_memory(changed, dataset.input_shape) > 0


def test_no_layer_of_a_backbone_with_conv4s_blocks_is_left_out(register):
    register(BACKBONES, "conv_linear", Backbone(ImportPath(f"{HERE}:conv_and_linear"), blocks=1))
    images = torch.rand(2, 3, 1, 16, 16)
    model = build_model(LearnerConfig(backbone="conv_linear", filters=4), (1, 16, 16), 5)
    expected = torch.stack([model.backbone(task) for task in images])
    torch.testing.assert_close(model.features(images), expected)


def test_a_registered_head_is_adapted(register, run, dataset):
    register(HEADS, "wide", HeadKind(ImportPath(f"{HERE}:wide_top")))
    learner = run.learner.model_copy(update={"head": "wide", "head_width": 3})
    assert learner.solved_curvature == "gauss_newton"
    trainer = trained(run.model_copy(update={"learner": learner}), dataset)
    assert trainer.model.head.top[0].out_features == 6


def test_a_registered_algorithm_computes_the_hypergradient(register, run, dataset):
    register(ALGORITHMS, "negated", Algorithm(ImportPath(f"{HERE}:negated")))
    gradients = []
    for name in ("memory_reduced", "negated"):
        learner = LearnerConfig(**(run.learner.model_dump() | {"algorithm": name}))
        trainer = MetaTrainer(run.model_copy(update={"learner": learner}), dataset, "cpu")
        trainer.accumulate()
        gradients.append([p.grad for p in trainer.model.learned()])
    for plus, minus in zip(*gradients, strict=True):
        torch.testing.assert_close(minus, -plus, rtol=0, atol=0)


def test_a_name_that_nobody_registered_is_refused_with_the_names_there_are():
    colours = Registry("colour", {"red": 1, "blue": 2})
    with pytest.raises(ValueError, match="no such colour, choose from red, blue"):
        colours["green"]
    with pytest.raises(ValueError, match="already"):
        colours.register("red", 3)
    assert [*colours] == ["red", "blue"]
    assert colours.names(lambda value: value > 1) == ["blue"]
    with pytest.raises(InputError, match="mars: no such data set, choose from glyphs"):
        data.load("mars", Path("data"))


def test_every_built_in_place_has_an_object():
    for registry in (ALGORITHMS, BACKBONES, HEADS):
        for name in registry:
            assert callable(import_object(registry[name].path))
    assert [DATA_SETS[name].name for name in DATA_SETS] == [*DATA_SETS]


def test_configs_are_read_without_pytorch():
    code = (
        "import sys; from memmeta.config import RunConfig;"
        "RunConfig.model_validate({'data': {'name': 'cifar_fs'}}).key;"
        "print('torch' in sys.modules, 'matplotlib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


CONSTANT = 3


@pytest.mark.parametrize(
    ("section", "name", "message"),
    [
        ("algorithm", "no_such_package.nets:make", "no_such_package.nets cannot be imported"),
        ("algorithm", f"{HERE}:negatd", "has no object negatd (did you mean negated?)"),
        ("algorithm", ":negated", "cannot be imported"),
        ("algorithm", "broken_module:make", "ZeroDivisionError: division by zero"),
        ("backbone", "exiting_module:make", "SystemExit: 3"),
        ("backbone", f"{HERE}:CONSTANT", "a function or Backbone is expected, got 3"),
        ("head", f"{HERE}:", "has no object"),
    ],
)
def test_an_import_path_that_leads_nowhere_is_refused_in_one_line(
    section, name, message, tmp_path, monkeypatch
):
    (tmp_path / "broken_module.py").write_text("1 / 0\n")
    (tmp_path / "exiting_module.py").write_text("raise SystemExit(3)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError) as refused:
        parse(LearnerConfig, {section: name}, "study.yaml")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_import_path_is_trained_with_like_a_registered_name(tmp_path):
    run = RunConfig(
        data={"name": f"{HERE}:STRIPES", "ways": 3},
        learner={"filters": 2, "task_batch": 2, "algorithm": f"{HERE}:negated"},
        training=TrainingConfig(iterations=2, evaluations=1, val_tasks=2),
    )
    assert trained(run, data.load(f"{HERE}:STRIPES", tmp_path)).done
    with pytest.raises(InputError, match="not a data set: it has no chance_level"):
        parse(RunConfig, {"data": {"name": f"{HERE}:negated"}}, "study.yaml")


def test_installed_packages_offer_objects_as_entry_points(monkeypatch):
    entries = [metadata.EntryPoint("negated", f"{HERE}:negated", "memmeta.algorithms")]
    monkeypatch.setattr(
        metadata,
        "entry_points",
        lambda **selection: entries if selection == {"group": "memmeta.algorithms"} else [],
    )
    registry = Registry("algorithm", {}, group="memmeta.algorithms", adopt=adopt_as(Algorithm))
    assert [*registry] == ["negated"]
    assert registry["negated"].backward is negated
