"""Summaries of a data set: counts, equal images, and a picture of a few tasks."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

import numpy as np
from PIL import Image, ImageDraw

from memmeta.data.dataset import ImageDataset, SplitName
from memmeta.data.episodes import Split
from memmeta.data.sources import Images, TaskShape

_TASKS = 4
_WAYS = 5
_SHOTS, _QUERIES = 2, 3
"""At most this many of each are drawn."""

_TILE = 64
"""Smallest height and width of an image in the picture; smaller images are enlarged."""

_GAP = 4
"""Pixels between images."""

_TITLE = 16
"""Height of the title of a task."""


@dataclass(frozen=True)
class SplitCounts:
    """The number of classes and images of a split."""

    split: SplitName
    classes: int
    images: int
    fewest: int
    """Images of the smallest class."""
    most: int
    """Images of the largest class."""


def counts(dataset: ImageDataset) -> list[SplitCounts]:
    """Count the classes and images of each split."""
    found = []
    for name, split in _splits(dataset):
        sizes = np.diff(split.offsets).tolist()
        found.append(SplitCounts(name, len(sizes), sum(sizes), min(sizes), max(sizes)))
    return found


@dataclass(frozen=True)
class EqualImages:
    """How many images equal an earlier image."""

    in_class: int
    """Copies within a class. A task never has both in support and query."""
    in_split: int
    """Copies in another class of the split. At least one of the two labels is wrong."""
    across_splits: int
    """Copies in another split. Training may see an image of a test."""
    example: str
    """Two classes with equal images; empty if there are none."""


def equal_images(dataset: ImageDataset) -> EqualImages:
    """Count equal images. Reads all images, one at a time."""
    first: dict[bytes, tuple[str, str]] = {}
    numbers = {"class": 0, "split": 0, "splits": 0}
    example = ""
    for name, split in _splits(dataset):
        for row, label in enumerate(_labels(split)):
            content = hashlib.sha256(split.images[row].tobytes()).digest()
            place = name, label
            before = first.setdefault(content, place)
            if before == place:
                continue
            numbers["split" if before[0] == name else "splits"] += 1
            example = example or f"{'/'.join(before)} and {'/'.join(place)}"
        if split.originals is not None:
            numbers["class"] += int((split.originals != np.arange(len(split.images))).sum())
    return EqualImages(numbers["class"], numbers["split"], numbers["splits"], example)


def picture(dataset: ImageDataset, split: SplitName = "train") -> Image.Image:
    """Draw a few tasks: a row for each class, with support images first and then query images.

    Args:
        dataset: the data set.
        split: the split to sample from.

    Raises:
        InputError: a class has a single image.
    """
    sizes = np.diff(getattr(dataset, split).offsets).tolist()
    shots = max(1, min(_SHOTS, min(sizes) - 1))
    queries = max(1, min(_QUERIES, min(sizes) - shots))
    shape = TaskShape(min(_WAYS, len(sizes)), shots, queries)
    tasks = dataset.episodes(split, shape, seed=0, indices=range(_TASKS))
    blocks = [
        _block(
            f"{split} task {task}", shape, tasks.support[task].numpy(), tasks.query[task].numpy()
        )
        for task in range(_TASKS)
    ]
    width, height = blocks[0].width + 4 * _GAP, blocks[0].height + 4 * _GAP
    page = Image.new("RGB", (2 * width, -(-_TASKS // 2) * height), "white")
    for index, block in enumerate(blocks):
        row, column = divmod(index, 2)
        page.paste(block, (column * width + 2 * _GAP, row * height + 2 * _GAP))
    return page


def _block(title: str, shape: TaskShape, support: Images, query: Images) -> Image.Image:
    """One task: a row for each class."""
    side = max(_TILE, support.shape[1])
    step = side + _GAP
    columns = shape.shots + shape.queries
    size = columns * step + 2 * _GAP, _TITLE + shape.ways * step
    block = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(block)
    pen.text((0, 0), f"{title}: support", fill="black")
    pen.text((shape.shots * step + 2 * _GAP, 0), "query", fill="black")
    for images, per_class, left in ((support, shape.shots, 0), (query, shape.queries, shape.shots)):
        for index, image in enumerate(images):
            row, column = divmod(index, per_class)
            x = (left + column) * step + (2 * _GAP if left else 0)
            block.paste(_tile(image, side), (x, _TITLE + row * step))
    return block


def _tile(image: Images, side: int) -> Image.Image:
    tile = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    return tile.resize((side, side), Image.Resampling.NEAREST)


def _splits(dataset: ImageDataset) -> Iterator[tuple[SplitName, Split]]:
    for name in get_args(SplitName):
        yield name, getattr(dataset, name)


def _labels(split: Split) -> Iterator[str]:
    """The class of each image."""
    for label, count in zip(split.class_names, np.diff(split.offsets), strict=True):
        yield from (label for _ in range(count))
