"""Own images in configs, by name and by folder."""

import pickle
from pathlib import Path

import pytest
import torch
import yaml

import memmeta as mm
from memmeta import checkpoint
from memmeta.config import DataConfig, RunConfig, completed, parse
from memmeta.data.own import looking_in
from memmeta.data.preparation import Recipe, prepare_images
from memmeta.errors import InputError
from memmeta.exported import read_run
from memmeta.memory.prediction import predict_peak_memory
from memmeta.training import MetaTrainer
from tests.memmeta.data import on_disk
from tests.memmeta.data.layouts import writers

NAMES = {split: [f"{split}{i}" for i in range(3)] for split in ("train", "val", "test")}


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder `photos`, and a data root `data` with its images as `birds`, 24x24."""
    home = tmp_path_factory.mktemp("home")
    writers.split_folders(on_disk.patterns(NAMES, 20, 8, 8), home / "photos")
    prepare_images(Recipe("birds", home / "photos", image_size=24), home / "data")
    return home


@pytest.fixture(autouse=True)
def stand_in(home, monkeypatch):
    monkeypatch.chdir(home)
    for name in ("MEMMETA_DATA_ROOT", "MEMMETA_CACHE"):
        monkeypatch.delenv(name, raising=False)


def small(**data: object) -> RunConfig:
    values = {
        "data": {"ways": 2, "shots": 1, "queries": 1, "eval_queries": 2, **data},
        "learner": {"filters": 4, "inner_steps": 2, "cg_steps": 2, "task_batch": 2},
        "training": {"iterations": 2, "evaluations": 1, "val_tasks": 2, "test_tasks": 2},
    }
    return parse(RunConfig, values, "test")


def test_the_shape_of_prepared_images_is_filled_in_and_recorded():
    config = DataConfig(name="birds")
    assert (config.image_size, config.channels) == (24, 3)
    assert config.source.input_shape == (3, 24, 24)
    record = config.model_dump()
    assert (record["image_size"], record["channels"]) == (24, 3)


def test_a_record_is_read_where_nothing_is_prepared(tmp_path, monkeypatch):
    run = small(name="birds")
    monkeypatch.chdir(tmp_path)
    again = parse(RunConfig, completed(RunConfig, run.model_dump(mode="json")), "record")
    assert again == run
    assert again.key == run.key
    assert predict_peak_memory(again) > 0
    with pytest.raises(InputError, match="birds: not prepared here"):
        again.data.load(tmp_path)


@pytest.mark.parametrize(
    ("variables", "given"),
    [
        ({"MEMMETA_DATA_ROOT": "data"}, (None, None)),
        ({"MEMMETA_CACHE": "data/cache"}, (None, None)),
        ({}, ("data", None)),
        ({"MEMMETA_CACHE": "nowhere"}, (None, "data/cache")),
    ],
)
def test_names_are_looked_up_where_the_data_are(variables, given, home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="no such data set"):
        DataConfig(name="birds")
    for name, value in variables.items():
        monkeypatch.setenv(name, str(home / value))
    with looking_in(*(home / place if place else None for place in given)):
        assert DataConfig(name="birds").image_size == 24


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"name": "bird"}, "data.name: no such data set (did you mean birds?), choose from glyphs"),
        ({"name": "../data/cache/birds"}, "data.name: no such data set"),
        ({"name": "a b", "image_size": 8}, "data.name: a name of letters, digits, _ and -"),
        ({"name": "glyphs", "image_size": 28}, "image_size is for own images, and glyphs is"),
        ({"name": "glyphs", "folder": "photos"}, "folder is for own images, and glyphs is"),
        ({"name": "birds", "channels": 4}, "data.channels: 1 or 3 is accepted, got 4"),
        ({"name": "birds", "image_size": 0}, "data.image_size: input should be greater"),
        ({"name": "birds", "split": "0.5,0.25,0.25"}, "split goes with folder"),
        ({"folder": "photos", "split": [0.5, 0.5, 0.5]}, "that sum to 1 are accepted"),
        ({"folder": "photos", "split": "0.5,0.5,0.5"}, "that sum to 1 are accepted"),
        ({"folder": 3}, "data.folder: input is not a valid path"),
    ],
)
def test_what_is_not_accepted_is_named(data, said):
    with pytest.raises(InputError) as error:
        parse(RunConfig, {"data": data}, "x.yaml")
    assert said in error.value.message
    assert "\n" not in error.value.message


def test_records_say_what_the_images_are_not_where_they_came_from(home):
    direct = small(folder="photos", image_size=24, split_seed=3)
    named = small(name="photos", image_size=24)
    assert direct.data.folder == home / "photos"
    assert direct.model_dump() == named.model_dump()
    assert direct.key == named.key
    # Worker processes get the config itself.
    assert pickle.loads(pickle.dumps(direct)).data.folder == home / "photos"


def test_a_folder_is_prepared_at_first_use(tmp_path):
    config = DataConfig(folder="photos", image_size=24)
    assert config.name == "photos"
    loaded = config.load(tmp_path)
    assert loaded.digest == mm.load_dataset("birds", "data").digest
    assert mm.load_dataset("photos", tmp_path).digest == loaded.digest


def test_folders_in_yaml_are_relative_to_the_file(home, tmp_path, monkeypatch):
    run = {"data": {"folder": "photos", "split": "split.csv"}}
    (home / "run.yaml").write_text(yaml.safe_dump(run))
    monkeypatch.chdir(tmp_path)
    data = read_run(home / "run.yaml").config.data
    assert (data.folder, data.split) == (home / "photos", home / "split.csv")


def test_images_of_another_shape_than_the_config_says_are_refused():
    with pytest.raises(InputError, match=r"birds: the images have the shape \(3, 24, 24\)"):
        DataConfig(name="birds", image_size=32).load(Path("data"))


def test_rotations_and_mirror_images_are_up_to_the_user():
    run = parse(RunConfig, {"data": {"name": "birds"}, "learner": {"augment": True}}, "x")
    assert run.learner.augment
    assert DataConfig(name="birds", rotations=True).rotations


def test_memory_is_predicted_to_the_byte():
    run = small(name="birds")
    trainer = MetaTrainer(run, run.data.load(Path("data")), torch.device("cpu"))
    trainer.train_to_evaluation()
    assert trainer.peak_memory == predict_peak_memory(run)


def test_a_run_trains_and_its_checkpoint_is_evaluated_elsewhere(home, tmp_path, monkeypatch):
    """The data root is not the default one, so their shape has to come from the data."""
    monkeypatch.chdir(tmp_path)
    data = mm.load_dataset("birds", home / "data")
    learner = mm.LearnerConfig(filters=4, inner_steps=2)
    episode = {"ways": 2, "shots": 1, "queries": 1, "eval_queries": 2}
    run = mm.train(learner, data, iterations=2, evaluations=1, val_tasks=2, **episode)
    run.save("model.pt")
    assert checkpoint.load(Path("model.pt")).config.data.image_size == 24
    assert mm.load("model.pt").evaluate(tasks=2, data=data) == run.evaluate(tasks=2)
