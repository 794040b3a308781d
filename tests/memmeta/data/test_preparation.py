import io
import os
import re
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from memmeta.data import decoding, load_dataset
from memmeta.data.decoder import DecoderProcess
from memmeta.data.preparation import Recipe, prepare_images
from memmeta.errors import FailedError, InputError
from memmeta.progress import NoProgress
from tests.memmeta.data import on_disk
from tests.memmeta.data.layouts import writers

NAMES = {"train": ["ant", "bee"], "val": ["cat"], "test": ["dog"]}


class Heard(NoProgress):
    """Keeps the lines, and calls `at` for each image."""

    def __init__(self, at=lambda: None) -> None:
        self.lines: list[str] = []
        self.at = at
        self.done = 0

    def bar(self, total, done, unit="outer steps"):
        del total, unit
        self.done = done
        return nullcontext(self.at)

    def line(self, text):
        self.lines.append(text)


@pytest.fixture
def photos(tmp_path) -> Path:
    """Four classes of twenty images."""
    writers.split_folders(on_disk.patterns(NAMES, 12, 20, 20), tmp_path / "photos")
    return tmp_path / "photos"


def recipe(photos: Path, **changes) -> Recipe:
    return Recipe(**{"name": "birds", "folder": photos, "image_size": 12} | changes)


def test_a_second_preparation_does_nothing_and_needs_no_files(photos, tmp_path):
    cache = prepare_images(recipe(photos), tmp_path)
    made = {path.name: path.stat().st_mtime_ns for path in cache.iterdir()}
    digest = load_dataset("birds", tmp_path).digest
    photos.rename(tmp_path / "moved")
    heard = Heard()
    assert prepare_images(recipe(photos), tmp_path, progress=heard) == cache
    assert heard.lines == []
    assert {path.name: path.stat().st_mtime_ns for path in cache.iterdir()} == made
    assert load_dataset("birds", tmp_path).digest == digest
    assert [path.name for path in cache.parent.iterdir() if path.is_dir()] == ["birds"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"image_size": 8}, "image_size 12 instead of 8"),
        ({"channels": 1}, "channels 3 instead of 1"),
        ({"split": (0.5, 0.25, 0.25)}, "split None instead of"),
        ({"folder": Path("elsewhere")}, "folder .*photos instead of .*elsewhere"),
    ],
)
def test_another_recipe_under_the_same_name_is_refused(changes, said, photos, tmp_path):
    prepare_images(recipe(photos), tmp_path)
    with pytest.raises(InputError, match=f"birds: was prepared with {said}"):
        prepare_images(recipe(photos, **changes), tmp_path)


@pytest.mark.parametrize("name", ["glyphs", "a/b", "..", "", "x:y"])
def test_names_that_own_images_cannot_have(name, photos, tmp_path):
    with pytest.raises(InputError):
        prepare_images(recipe(photos, name=name), tmp_path)
    assert not (tmp_path / "cache").exists()


def test_an_interrupted_preparation_continues(photos, tmp_path):
    prepare_images(recipe(photos, name="at_once"), tmp_path)
    count = 0

    def interrupt():
        nonlocal count
        count += 1
        if count == 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_images(recipe(photos), tmp_path, progress=Heard(interrupt))
    heard = Heard()
    prepare_images(recipe(photos), tmp_path, progress=heard)
    assert 32 <= heard.done <= 40
    assert load_dataset("birds", tmp_path).digest == load_dataset("at_once", tmp_path).digest


KILLED = """
import os, signal, sys
from contextlib import nullcontext
from pathlib import Path
from memmeta.data import decoding
from memmeta.data.preparation import Recipe, prepare_images
from memmeta.progress import NoProgress

decoding._BETWEEN_SAVES = 0

class Killing(NoProgress):
    count = 0
    def bar(self, *_):
        return nullcontext(self.advance)
    def advance(self):
        self.count += 1
        if self.count == 50:
            os.kill(os.getpid(), signal.SIGKILL)

root = Path(sys.argv[1])
prepare_images(Recipe("birds", root / "photos", image_size=12), root, progress=Killing())
"""


def test_a_killed_preparation_continues(photos, tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert done.returncode == -9
    heard = Heard()
    prepare_images(recipe(photos), tmp_path, progress=heard)
    assert 40 <= heard.done < 50
    prepare_images(recipe(photos, name="at_once"), tmp_path)
    assert load_dataset("birds", tmp_path).digest == load_dataset("at_once", tmp_path).digest


def test_several_processes_decode_the_same_images(photos, tmp_path, monkeypatch):
    prepare_images(recipe(photos, name="in_one"), tmp_path)
    monkeypatch.setattr(decoding, "_FILES_OF_A_PROCESS", 1)
    monkeypatch.setattr(decoding, "_cores", lambda: 2)
    writers.put(photos / "train" / "ant" / "page.jpg", b"<html>")
    with pytest.raises(InputError, match="1 of 81 images cannot be used"):
        prepare_images(recipe(photos), tmp_path)
    prepare_images(recipe(photos), tmp_path, skip_broken=True)
    assert load_dataset("birds", tmp_path).digest == load_dataset("in_one", tmp_path).digest
    assert psutil.Process().children() == []


def test_a_lost_process_is_one_line():
    process = DecoderProcess((3, 8, 8))
    (child,) = psutil.Process().children()
    assert process([("a.png", b"x")]) == ["a.png: not an image, or damaged"]
    child.kill()
    child.wait()
    with pytest.raises(FailedError, match="was lost"):
        process([("a.png", b"x")])
    process.close()


def test_changed_files_are_decoded_again(photos, tmp_path):
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_images(recipe(photos), tmp_path, progress=Heard(interrupt))
    writers.put(photos / "train" / "ant" / "more.png", writers.png(np.zeros((12, 12, 3), np.uint8)))
    heard = Heard()
    prepare_images(recipe(photos), tmp_path, progress=heard)
    assert heard.done == 0
    assert len(load_dataset("birds", tmp_path).train.images) == 41


def test_broken_files_are_refused_by_name_with_a_count_or_left_out(photos, tmp_path):
    whole = (photos / "train" / "ant" / "0.PNG").read_bytes()
    writers.put(photos / "train" / "ant" / "cut.png", whole[:-40])
    writers.put(photos / "train" / "ant" / "page.jpg", b"<html>")
    os.mkfifo(photos / "train" / "bee" / "pipe.jpg")
    with pytest.raises(InputError) as error:
        prepare_images(recipe(photos), tmp_path)
    first, *named = error.value.message.splitlines()
    assert "birds: 3 of 83 images cannot be used; --skip-broken of memmeta data prepare" in first
    assert [Path(line.split(":")[0]).name for line in named] == ["cut.png", "page.jpg", "pipe.jpg"]
    heard = Heard()
    prepare_images(recipe(photos), tmp_path, skip_broken=True, progress=heard)
    assert heard.done == 80
    assert any("3 of 83 images cannot be used and are left out" in line for line in heard.lines)
    assert len(load_dataset("birds", tmp_path).train.images) == 40
    # Neither is it refused now, nor decoded again.
    prepare_images(recipe(photos), tmp_path)


def test_a_class_of_broken_files_is_left_out_and_named(photos, tmp_path):
    writers.put(photos / "train" / "yak" / "0.jpg", b"")
    heard = Heard()
    prepare_images(recipe(photos), tmp_path, skip_broken=True, progress=heard)
    assert any("left out, without images: yak" in line for line in heard.lines)
    assert load_dataset("birds", tmp_path).train.class_names == ("ant", "bee")


def test_files_that_are_not_images_are_counted(photos, tmp_path):
    for path in ("train/ant/Notes.txt", "test/dog/desktop.ini", "test/dog/.hidden"):
        writers.put(photos / path, b"text")
    heard = Heard()
    prepare_images(recipe(photos), tmp_path, progress=heard)
    assert any("left out, not images: 2, such as " in line for line in heard.lines)


def test_few_classes_and_images_are_said(photos, tmp_path):
    heard = Heard()
    prepare_images(recipe(photos), tmp_path, progress=heard)
    assert any("train has 2, val has 1, test has 1" in line for line in heard.lines)
    shutil.rmtree(photos / "test")
    with pytest.raises(InputError, match="2 of train, 1 of val, 0 of test"):
        prepare_images(recipe(photos, name="other"), tmp_path)


def flat(mode: str, colour: object, **save: object) -> bytes:
    content = io.BytesIO()
    Image.new(mode, (40, 20), colour).save(content, **save)
    return content.getvalue()


def sixteen_bits() -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.full((20, 40), 51400, np.uint16)).save(content, "PNG")
    return content.getvalue()


def rotated() -> bytes:
    """Left half white, right half black, to be turned by 90 degrees clockwise."""
    image = Image.new("L", (40, 40))
    image.paste(255, (0, 0, 20, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    content = io.BytesIO()
    image.save(content, "JPEG", exif=exif)
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "colour"),
    [
        (flat("L", 200, format="PNG"), (200, 200, 200)),
        (sixteen_bits(), (200, 200, 200)),
        (flat("RGBA", (200, 100, 50, 255), format="PNG"), (200, 100, 50)),
        (flat("CMYK", (0, 255, 255, 0), format="JPEG"), (255, 0, 0)),
        (flat("P", 1, format="GIF"), (1, 1, 1)),
        (flat("RGB", (200, 100, 50), format="WEBP", lossless=True), (200, 100, 50)),
        (flat("1", 1, format="BMP"), (255, 255, 255)),
    ],
    ids=["grey", "16 bits", "RGBA", "CMYK", "palette", "WEBP", "1 bit"],
)
def test_every_kind_of_file_is_decoded_to_its_colour(content, colour, photos, tmp_path):
    for path in (photos / "test" / "dog").iterdir():
        path.unlink()
    writers.put(photos / "test" / "dog" / "0.JPG", content)
    prepare_images(recipe(photos), tmp_path)
    (image,) = load_dataset("birds", tmp_path).test.images
    assert np.abs(image.astype(int) - colour).max() <= 2


def test_photographs_are_turned_upright(photos, tmp_path):
    for path in (photos / "test" / "dog").iterdir():
        path.unlink()
    writers.put(photos / "test" / "dog" / "0.jpg", rotated())
    prepare_images(recipe(photos, channels=1), tmp_path)
    (image,) = load_dataset("birds", tmp_path).test.images
    assert image[:5].min() > 200
    assert image[7:].max() < 50


def test_the_cache_is_not_created_without_room(photos, tmp_path, monkeypatch):
    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("memmeta.data.preparation.shutil.disk_usage", lambda _: full)
    with pytest.raises(InputError, match="GiB are free; choose another folder with --cache"):
        prepare_images(recipe(photos), tmp_path)


MEASURED = (
    on_disk.PEAK
    + """
import sys
from memmeta.data.preparation import Recipe, prepare_images

root = Path(sys.argv[1])
prepare_images(Recipe("warm", root / "few", image_size=224), root)
before = peak()
prepare_images(Recipe("birds", root / "photos", image_size=224), root)
print("grown by", peak() - before)
"""
)


@pytest.mark.thorough
def test_a_class_larger_than_memory_is_prepared(tmp_path):
    """600 MB of pixels in one class."""
    writers.split_folders(on_disk.patterns(NAMES, 12, 20, 20), tmp_path / "few")
    writers.split_folders(on_disk.patterns(NAMES, 12, 20, 20), tmp_path / "photos")
    for number in range(4000):
        image = np.full((2, 2, 3), number % 251, np.uint8)
        writers.put(tmp_path / "photos" / "train" / "ant" / f"x{number}.png", writers.png(image))
    command = [sys.executable, "-c", MEASURED, str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert int(re.search(r"grown by (\d+)", done.stdout)[1]) < 150e6
