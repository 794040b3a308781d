"""`memmeta data prepare` and `show`, and own images in other commands."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from memmeta.__main__ import main
from tests.memmeta.commands.helpers import TINY, write
from tests.memmeta.data import on_disk
from tests.memmeta.data.layouts import writers

NAMES = {"all": [f"class{i}" for i in range(20)]}


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """Twenty classes of six images, in the current folder."""
    writers.class_folders(on_disk.patterns(NAMES, 12, 6, 6), tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photos"


def call(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, [*map(str, words)])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.output


def test_own_images_from_a_folder_to_a_score(photos):
    prepare = ("data", "prepare", "birds", "--folder", photos, "--image-size", 16)
    code, output = call(*prepare, "--split", "0.5,0.25,0.25")
    assert code == 0, output
    assert "class folders, 20 classes, 120 images" in output
    assert "class0 has 6 images, and tasks need" in output
    shutil.rmtree(photos)
    assert call("data", "list")[1].splitlines()[-1].split()[:2] == ["birds", "prepared"]
    config = write(Path("run.yaml"), TINY | {"data": TINY["data"] | {"name": "birds"}})
    code, output = call("train", config, "--out", "model.pt", "--threads", 1)
    assert code == 0, output
    assert "accuracy" in call("evaluate", "model.pt", "--tasks", 2, "--threads", 1)[1]
    code, output = call("train", config, "--data-root", "elsewhere")
    assert code == 2
    assert "run.yaml: data.name: no such data set" in output


def test_show_counts_and_draws(photos):
    image = (photos / "class0" / "0.png").read_bytes()
    for place in ("class0/copy.png", "class1/copy.png"):
        writers.put(photos / place, image)
    everything = [(f"class{i}", ("train", "val", "test", "test")[i % 4]) for i in range(20)]
    writers.table(Path("split.csv"), [("label", "split"), *everything])
    prepare = ("data", "prepare", "birds", "--folder", photos, "--image-size", 16, "--grey")
    code, output = call(*prepare, "--split", "split.csv")
    assert code == 0, output
    code, output = call("data", "show", "birds", "--out", "birds.png", "--split", "val")
    assert code == 0, output
    lines = [line.split() for line in output.splitlines()]
    assert ["train", "5", "31", "6", "to", "7"] in lines
    assert ["test", "10", "60", "6"] in lines
    assert "size: 16x16, grey" in output
    assert "1 in the same class, 0 in another class, 1 in another split" in output
    assert "(such as train/class0 and val/class1)" in output
    picture = np.asarray(Image.open("birds.png").convert("L"))
    assert picture.std() > 20


def test_a_picture_needs_a_name_of_a_picture(photos):
    call("data", "prepare", "birds", "--folder", photos, "--image-size", 8)
    code, output = call("data", "show", "birds", "--out", "birds.txt")
    assert code == 2
    assert "birds.txt: a name that ends with .png or .jpg" in output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--folder", "nowhere"), "nowhere: no such folder"),
        (("--folder", "photos", "--split", "1,2,3"), "that sum to 1 are accepted"),
        (("--folder", "photos", "--split", "none.csv"), "none.csv: cannot be read"),
        (("--folder", "photos", "--images", "photos"), "is for tables and lists that name files"),
        (("--folder", "photos", "--split", "few.csv"), "few.csv: has no split of the class class1"),
        (("--folder", "photos", "--split", "odd.csv"), "line 2: split: train, val or test"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(words, said, photos):
    del photos
    writers.table(Path("few.csv"), [("label", "split"), ("class0", "train")])
    writers.table(Path("odd.csv"), [("label", "split"), ("class0", "tr")])
    code, output = call("data", "prepare", "birds", *words)
    assert code == 2
    assert said in output
    assert not Path("data").exists()
