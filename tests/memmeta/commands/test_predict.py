"""`memmeta predict`, on the files of a user."""

import csv
import re
import zlib

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from memmeta import checkpoint
from memmeta.__main__ import main
from memmeta.data.sets.sinusoid import SINUSOID
from memmeta.fit import train
from memmeta.run import load
from memmeta.settings.learner import LearnerConfig

SUFFIXES = (".png", ".PNG", ".bmp", ".Gif", ".tiff", ".webp")


@pytest.fixture(scope="module")
def model(data_root, tmp_path_factory):
    """A model of glyphs, and its data set."""
    from memmeta.data import load_dataset

    data = load_dataset("glyphs", data_root)
    learner = LearnerConfig(filters=4, inner_steps=3, task_batch=2)
    run = train(learner, data, iterations=2, evaluations=1, val_tasks=2, shots=1, device="cpu")
    path = tmp_path_factory.mktemp("model") / "model.pt"
    run.save(path)
    return path, data


@pytest.fixture
def folders(model, tmp_path):
    """Three classes of two labelled images, and twelve others in subfolders."""
    images = model[1].test.images
    for index, row in enumerate(range(18)):
        name = ("cat", "dog", "=SUM(1)")[index % 3]
        folder = f"support/{name}" if index < 6 else f"query/sub{index % 2}"
        path = tmp_path / folder / f"{index}{SUFFIXES[index % 6]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[row, ..., 0]).save(path, lossless=True)
    return tmp_path


@pytest.fixture
def predict(model, folders, monkeypatch):
    """Runs the command in the folder of the images; options replace the usual ones."""
    monkeypatch.chdir(folders)

    def run(**options: object) -> tuple[int, str]:
        options = {"support": "support", "query": "query", "out": "out.csv", "threads": 1} | options
        file = options.pop("model", model[0])
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        result = CliRunner().invoke(main, ["predict", str(file), *words])
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result.exit_code, result.output

    return run


def rows(path="out.csv"):
    with open(path, encoding="utf-8", newline="") as file:  # noqa: PTH123
        return list(csv.DictReader(file))


def test_predictions_are_those_of_the_library(predict, model):
    code, output = predict()
    assert code == 0, output
    assert "out.csv: 12 images, 3 classes" in output
    found = rows()
    files = [row["file"] for row in found]
    assert files == sorted(files)
    assert len(files) == 12
    # An apostrophe keeps spreadsheets from computing the name.
    assert [*found[0]] == ["file", "predicted", "p(=SUM(1))", "p(cat)", "p(dog)"]
    assert {row["predicted"] for row in found} <= {"'=SUM(1)", "cat", "dog"}
    images = model[1].test.images
    classifier = load(model[0], device="cpu").adapt(
        images[[2, 5, 0, 3, 1, 4]], ["=SUM(1)", "=SUM(1)", "cat", "cat", "dog", "dog"]
    )
    order = [int(name.split("/")[1].split(".")[0]) for name in files]
    expected = classifier.predict_proba(images[order])
    printed = [[float(row[name]) for name in [*row][2:]] for row in found]
    np.testing.assert_allclose(printed, expected, rtol=1e-6)


def test_other_files_are_named_and_hidden_ones_are_skipped(predict, folders):
    for name in (
        "query/._a.png",
        "query/.hidden/a.png",
        "support/.DS_Store",
        "support/cat/._1.png",
    ):
        (folders / name).parent.mkdir(exist_ok=True)
        (folders / name).write_bytes(b"no image")
    (folders / "query" / "a.heic").write_bytes(b"")
    code, output = predict()
    assert code == 0, output
    assert "left out, not images: 1 file, such as query/a.heic" in output
    assert len(rows()) == 12


def test_photographs_of_any_size_and_mode_are_read(predict, folders):
    Image.new("CMYK", (300, 100)).save(folders / "query" / "x.jpg")
    Image.new("I;16", (30, 10)).save(folders / "query" / "y.png")
    assert predict()[0] == 0
    assert len(rows()) == 14


def test_a_file_name_without_an_encoding_is_written(predict, folders):
    try:
        Image.new("L", (9, 9)).save(folders / "query" / "\udcff.png")
    except OSError:
        pytest.skip("the file system takes only UTF-8")
    assert predict()[0] == 0
    assert "\\udcff.png" in {row["file"] for row in rows()}


def bomb() -> bytes:
    """A PNG of 10,000 x 9,000 grey pixels in 90 kB."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content).to_bytes(4, "big")
        return len(content).to_bytes(4, "big") + kind + content + check

    size = (10_000).to_bytes(4, "big") + (9_000).to_bytes(4, "big")
    pixels = zlib.compress(bytes(9_000 * 10_001))
    header = chunk(b"IHDR", size + b"\x08\x00\x00\x00\x00")
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("folder", ["query", "support/cat"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "an empty file, not an image"),
        (b"<html>404</html>", "a web page, not an image"),
        (b"\x89PNG\r\n\x1a\nbroken", "not an image, or damaged"),
        (bomb(), "it would need more than .* MiB of memory"),
    ],
    ids=["empty", "page", "broken", "bomb"],
)
def test_a_file_that_is_no_image_is_named(predict, folders, folder, content, said):
    (folders / folder / "bad.png").write_bytes(content)
    code, output = predict()
    assert code == 2
    assert len(output.strip().splitlines()) == 1
    assert f"{folder}/bad.png: " in output
    assert re.search(said, output)
    assert not (folders / "out.csv").exists()


def one_class(folders):
    for name in ("dog", "=SUM(1)"):
        (folders / "support" / name).rename(folders / name)


def no_class(folders):
    (folders / "support" / "0.png").write_bytes(b"")


def empty_class(folders):
    (folders / "support" / "bird").mkdir()


def empty_query(folders):
    (folders / "query").rename(folders / "other")
    (folders / "query").mkdir()


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        (one_class, {}, "support: a folder for each class"),
        (no_class, {}, "support/0.png: is in no class folder"),
        (empty_class, {}, "support/bird: no images (.png"),
        (empty_query, {}, "query: no images (.png"),
        (None, {"query": "nowhere"}, "nowhere: cannot be read"),
        (None, {"support": "nowhere"}, "nowhere: cannot be read"),
        (None, {"model": "nowhere.pt"}, "nowhere.pt: cannot be read"),
        (None, {"out": "query/sub0/6.png/out.csv"}, "out.csv: cannot be written"),
        (None, {"device": "warp"}, "device warp: "),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(predict, folders, change, options, said):
    if change:
        change(folders)
    code, output = predict(**options)
    assert code == 2, output
    assert said in output
    assert len(output.strip().splitlines()) == 1


def test_a_model_of_points_classifies_no_images(predict, folders):
    learner = LearnerConfig(backbone="mlp", inner_steps=1, task_batch=1)
    run = train(learner, SINUSOID, iterations=1, evaluations=1, val_tasks=2)
    run.save(folders / "waves.pt")
    code, output = predict(model="waves.pt")
    assert code == 2
    assert "the model takes points, not images" in output


def test_a_model_that_predicts_nothing_is_exit_code_1(predict, model, folders):
    content = torch.load(model[0])
    for parameter in content["trainer"]["model"].values():
        parameter.fill_(float("nan"))
    checkpoint.write(folders / "nan.pt", content)
    code, output = predict(model="nan.pt")
    assert code == 1
    assert "not finite" in output
    assert not (folders / "out.csv").exists()


@pytest.mark.parametrize("out", ["query/sub0/new.PNG", "support.tiff"])
def test_predictions_do_not_replace_images(predict, out):
    code, output = predict(out=out)
    assert code == 2
    assert "the name of a CSV file is expected" in output


def test_predictions_do_not_replace_the_model(predict, model):
    before = model[0].read_bytes()
    code, _ = predict(out=model[0])
    assert (code, model[0].read_bytes()) == (2, before)
