import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from memmeta.data import load
from memmeta.data.dataset import ImageDataset
from memmeta.data.episodes import sample_episodes
from memmeta.data.sets import glyph_drawing
from memmeta.data.sources import SPLITS


@pytest.fixture(scope="module")
def dataset(data_root: Path) -> ImageDataset:
    return load("glyphs", data_root)


def test_sizes(dataset):
    counts = {split: len(getattr(dataset, split).class_names) for split in SPLITS}
    assert 600 <= counts["train"] <= 1300
    assert counts["val"] >= 150
    assert counts["test"] >= 150
    assert dataset.input_shape == (1, 28, 28)
    for split in SPLITS:
        # Enough for 5 shots and the 15 queries of an evaluation.
        assert np.diff(getattr(dataset, split).offsets).min() >= 20


def test_splits_have_different_scripts(dataset):
    scripts = {
        split: {
            unicodedata.name(chr(int(name[2:], 16))).split()[0]
            for name in getattr(dataset, split).class_names
            if unicodedata.category(chr(int(name[2:], 16))).startswith("L")
        }
        for split in SPLITS
    }
    assert {"LATIN", "CYRILLIC"} <= scripts["train"]
    assert {"GREEK", "ARABIC"} <= scripts["val"]
    assert {"ARMENIAN", "GEORGIAN", "HEBREW", "LAO"} <= scripts["test"]
    assert not scripts["test"] & (scripts["train"] | scripts["val"])
    assert not scripts["train"] & scripts["val"]


def test_no_two_classes_look_alike():
    codes = [code for split in SPLITS for code in glyph_drawing._alphabet()[split]]
    first = [next(font for font in glyph_drawing._fonts() if code in font.codes) for code in codes]
    drawn = np.stack(
        [np.asarray(glyph_drawing._master(*pair)) for pair in zip(first, codes, strict=True)]
    )
    assert len(np.unique(drawn.reshape(len(drawn), -1), axis=0)) == len(codes)
    assert (drawn.reshape(len(drawn), -1).max(axis=1) > 128).all()
    # At most one of several letters with the same drawing is included.
    for alike in ("AΑАᎪ", "OΟОՕ", "HΗН", "oоοօ"):
        assert sum(ord(letter) in codes for letter in alike) <= 1


def test_images_differ_and_have_contrast(dataset):
    images = np.asarray(dataset.test.images)
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(images)
    contrast = np.percentile(images, 97, axis=(1, 2, 3)) - np.median(images, axis=(1, 2, 3))
    assert np.mean(contrast > 20) > 0.97


def test_drawing_does_not_depend_on_the_process():
    code = (
        "import hashlib; from memmeta.data.sets import glyph_drawing;"
        "print([hashlib.sha256(glyph_drawing.draw(c)).hexdigest() for c in (0x41, 0x3A8, 0x5D0)])"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(runs) == 1


@pytest.mark.parametrize("split", ["val", "test"])
def test_raw_pixels_are_informative_but_not_sufficient(dataset, split):
    """The nearest class mean, without any learning, is well above chance and far below 1."""
    tasks = sample_episodes(
        getattr(dataset, split), ways=5, shots=5, queries=15, seed=0, indices=range(200)
    )
    means = tasks.support.reshape(200, 5, 5, -1).float().mean(dim=2)
    query = tasks.query.reshape(200, 75, -1).float()
    nearest = (query[:, :, None] - means[:, None]).square().sum(-1).argmin(-1)
    accuracy = (nearest == tasks.query_labels).float().mean().item()
    assert 0.40 < accuracy < 0.70
