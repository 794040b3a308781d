"""Runs that are saved, loaded and evaluated."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from memmeta import checkpoint
from memmeta.data.dataset import ImageDataset
from memmeta.data.episodes import Split
from memmeta.data.sets.sinusoid import SINUSOID
from memmeta.errors import InputError
from memmeta.evaluation import EVALUATION_SEED
from memmeta.fit import train_run
from memmeta.run import Run, load
from memmeta.training import MetaTrainer
from tests import ROOT

V1 = ROOT / "tests/records/v1/sweep/old-600steps-seed0/checkpoints/03766bdf2a73/trainer.pt"


@pytest.fixture
def trained(run, dataset) -> Run:
    return train_run(run, dataset, device="cpu", progress=False)


@pytest.fixture
def saved(trained, tmp_path) -> Path:
    trained.save(str(tmp_path / "model.pt"))
    return tmp_path / "model.pt"


def test_a_loaded_run_equals_the_trained_one_without_its_data(trained, saved, dataset):
    loaded = load(saved, device="cpu")
    for name in ("config", "reports", "peak_memory", "seconds_per_step", "note", "input_shape"):
        assert getattr(loaded, name) == getattr(trained, name)
    assert repr(loaded) == repr(trained)
    images = dataset.test.images
    one, other = (run.adapt(images[:3], ["a", "b", "c"]) for run in (trained, loaded))
    np.testing.assert_array_equal(one.predict_proba(images), other.predict_proba(images))


def test_results_are_those_of_the_trainer(run, dataset, trained):
    trainer = MetaTrainer(run, dataset, "cpu")
    while not trainer.done:
        trainer.train_to_evaluation()
    assert [r._replace(time=0) for r in trained.reports] == [
        r._replace(time=0) for r in trainer.reports
    ]
    assert trained.peak_memory == trainer.peak_memory
    for split in ("val", "test"):
        assert trained.evaluate(split, 5) == trainer.evaluate(split, 5)
    assert trained.evaluate("val") == trained.reports[-1].val


def test_evaluation_needs_the_data_set(saved, trained, dataset):
    with pytest.raises(InputError, match=r"model\.pt: evaluation needs .*load_dataset\('glyphs'\)"):
        load(saved).evaluate("test")
    expected = trained.evaluate("test", 5)
    assert load(saved, device="cpu").evaluate("test", 5, data=dataset) == expected
    assert load(saved, device="cpu", data=dataset).evaluate("test", 5) == expected


def test_data_of_another_kind_is_refused(trained, dataset):
    with pytest.raises(InputError, match="was trained on glyphs: sinusoid has points"):
        trained.evaluate("test", data=SINUSOID)
    waves = load(V1, data=SINUSOID)
    with pytest.raises(InputError, match="was trained on sinusoid: glyphs has images"):
        waves.evaluate("test", data=dataset)


def other(shape: tuple[int, ...], classes: int = 4) -> ImageDataset:
    """A data set of another name, whose training split has too few images for tasks."""
    rng = np.random.default_rng(0)
    splits = [
        Split(
            rng.integers(0, 256, (classes * images, *shape), np.uint8),
            np.arange(classes + 1) * images,
            tuple("abcdefgh"[:classes]),
        )
        for images in (1, 9, 9)
    ]
    channels = shape[-1]
    return ImageDataset("other", *splits, (9.0,) * channels, (5.0,) * channels, digest="other")


def test_a_run_is_scored_on_images_of_another_size_like_images_given_to_adapt(trained, saved):
    """The oracle adapts to each task through the public path for new images."""
    data, config = other((20, 24, 3)), trained.config
    result = trained.evaluate("test", 6, data=data)
    assert load(saved, device="cpu").evaluate("test", 6, data=data) == result
    shape = config.data.evaluation_shape
    tasks = data.episodes("test", shape, seed=EVALUATION_SEED, indices=range(6))
    accuracies = []
    for support, labels, query, truth in zip(*tasks, strict=True):
        predicted = trained.adapt(support, labels.tolist()).predict(query)
        accuracies.append(np.mean(np.array(predicted) == truth.numpy()))
    assert result.value == pytest.approx(np.mean(accuracies), abs=1e-6)
    assert result.tasks == 6


def test_other_data_with_too_few_classes_are_refused(trained):
    with pytest.raises(InputError, match="other, split test: 3 ways, but the split has 2 classes"):
        trained.evaluate("test", 2, data=other((16, 16, 1), classes=2))


def test_other_data_cannot_replace_the_inputs_that_an_old_file_lacks(dataset):
    old = load(V1, data=dataset)
    with pytest.raises(InputError, match=r"lacks .*load_dataset\('sinusoid'\)"):
        old.evaluate("test", 2)


def test_a_saved_run_is_a_checkpoint_of_its_trainer(saved, run, dataset, trained):
    trainer = MetaTrainer(run, dataset, "cpu")
    checkpoint.resume(trainer, saved)
    assert trainer.done
    assert trainer.reports == trained.reports


def test_a_path_that_cannot_be_written_is_one_line(trained, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"model\.pt: cannot be written"):
        trained.save(tmp_path / "file" / "model.pt")


def test_a_file_of_version_1_needs_the_data_set_once(tmp_path):
    path = Path(shutil.copy(V1, tmp_path / "old.pt"))
    old = load(path, device="cpu")
    assert old.reports
    with pytest.raises(InputError, match=r"old\.pt: lacks .*data=load_dataset\('sinusoid'\)"):
        old.adapt_regression([0.0], [0.0])
    completed = load(path, device="cpu", data=SINUSOID)
    expected = completed.adapt_regression([0.0, 1.0], [0.0, 1.0]).predict([0.5])
    completed.save(tmp_path / "new.pt")
    again = load(tmp_path / "new.pt", device="cpu")
    assert again.adapt_regression([0.0, 1.0], [0.0, 1.0]).predict([0.5]) == expected


def without_a_parameter(content):
    content["trainer"]["model"].popitem()


def of_another_type(content):
    model = content["trainer"]["model"]
    model |= {name: value.double() for name, value in model.items()}


def expanded(content):
    """A thousand weights that share one number in the file."""
    model = content["trainer"]["model"]
    name = next(iter(model))
    model[name] = torch.zeros(1).expand(model[name].shape)


def without_numbers(content):
    model = content["trainer"]["model"]
    model |= {name: value.to("meta") for name, value in model.items()}


def wider(content):
    """A config that states a model of 400 GB."""
    content["config"]["learner"] |= {"filters": 10_000, "backbone": "resnet12"}


def other_reports(content):
    content["trainer"]["reports"][0]["diagnostics"] = {"cg_residual": "high"}


def other_times(content):
    content["trainer"]["timed_steps"] = "two"


def no_state(content):
    content["trainer"] = []


@pytest.mark.parametrize(
    "damage",
    [
        without_a_parameter,
        of_another_type,
        expanded,
        without_numbers,
        wider,
        other_reports,
        other_times,
        no_state,
    ],
)
def test_a_file_that_does_not_fit_its_config_is_damaged(saved, damage):
    content = torch.load(saved)
    damage(content)
    checkpoint.write(saved, content)
    with pytest.raises(checkpoint.DamagedError, match=r"model\.pt: a damaged checkpoint"):
        load(saved)


INPUTS = {"input_shape": [1, 16, 16], "mean": [125.0], "std": [60.0]}


@pytest.mark.parametrize(
    "inputs",
    [
        {"input_shape": [1, 16]},
        {"input_shape": [1, 16, 0]},
        {"input_shape": [1, 16, 10**9]},
        {"input_shape": [1] * 100_000},
        {"input_shape": "16"},
        {"input_shape": [1, 16, 16.5]},
        {"mean": []},
        {"mean": [125.0, 1.0]},
        {"mean": [float("nan")]},
        {"mean": [float("inf")]},
        {"std": [0.0]},
        {"std": [-1.0]},
        {"std": [float("nan")]},
        {"std": [torch.ones(2)]},
        {"later": 1},
    ],
)
def test_inputs_that_no_version_writes_are_damaged(saved, inputs):
    content = torch.load(saved)
    checkpoint.write(saved, content | {"inputs": INPUTS | inputs})
    with pytest.raises(checkpoint.DamagedError, match=r"model\.pt: inputs: ") as error:
        load(saved)
    assert "\n" not in error.value.message
    assert len(error.value.message) < 2000


@pytest.mark.parametrize("inputs", [[], 3, {"input_shape": [3, 16, 16]}, {}])
def test_inputs_of_another_kind_are_damaged(saved, inputs):
    content = torch.load(saved)
    checkpoint.write(saved, content | {"inputs": inputs})
    with pytest.raises(checkpoint.DamagedError):
        load(saved)


def test_images_that_the_weights_are_not_made_for_are_damaged(saved):
    content = torch.load(saved)
    three = {"input_shape": [3, 16, 16], "mean": [1.0] * 3, "std": [1.0] * 3}
    checkpoint.write(saved, content | {"inputs": three})
    with pytest.raises(checkpoint.DamagedError):
        load(saved)
