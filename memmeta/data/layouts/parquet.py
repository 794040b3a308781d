"""Parquet files with the columns image and label, as `datasets` writes them.

An image is its bytes, or a struct with the field bytes. A label is a name, or a number; the
schema's metadata may name the numbers. A file named after a split (`train-00000-of-00001.parquet`)
belongs to it.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memmeta.data.formats.foreign import open_file, unexpected
from memmeta.data.layouts.entries import Entry, file_stamp, split_named, with_suffix
from memmeta.errors import InputError

FORM = "Parquet files"
LISTS_PATHS = False

_IMAGE = ("image", "img", "bytes")
_LABEL = ("label", "fine_label", "class_name", "class")
"""Names of columns; the first that a file has counts."""

_ROWS = 32
"""Images of a file that are read at a time."""

_KEPT = 8
"""How often `_ROWS` images are kept, because threads ask for rows in about their order."""

_BUFFER = 2**20
"""Bytes that are read from disk at a time. By default whole columns would be."""


def files(place: Path) -> list[Path]:
    """See `Layout.files`: the Parquet files in the folder, or in its folder `data`."""
    return with_suffix(place, ".parquet") or (
        with_suffix(place / "data", ".parquet") if (place / "data").is_dir() else []
    )


def entries(files: list[Path], images: Path | None) -> Iterator[Entry]:
    """See `Layout.entries`. Only labels are read."""
    del images
    for path in files:
        split = split_named(path.stem)
        content = _Images(path)
        for row, label in enumerate(content.labels()):
            yield Entry(split, label, f"{path}: row {row}", _Row(content, row))


@dataclass(frozen=True, slots=True)
class _Row:
    """The image in a row of a file."""

    file: "_Images"
    row: int

    def read(self) -> bytes:
        """See `Content.read`."""
        return self.file.read(self.row)

    def stamp(self) -> str:
        """See `Content.stamp`."""
        return f"{self.row} {file_stamp(self.file.path)}"


class _Images:
    """The images of one file. Reading rows in about their order reads the file once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._batches: Iterator[Any] = iter(())
        self._next = 0
        self._kept: dict[int, list[Any]] = {}
        """The last batches, by their number."""
        with self._errors():
            schema = self._file().schema_arrow
        self._image, self._label = (
            next((name for name in names if name in schema.names), None)
            for names in (_IMAGE, _LABEL)
        )
        if self._image is None or self._label is None:
            raise unexpected(path, "a Parquet file with the columns image and label", magic=b"PAR1")
        self._names = _class_names(schema.metadata or {}, self._label)

    def labels(self) -> Iterator[str]:
        """The class of each row."""
        with self._errors():
            batches = self._file().iter_batches(columns=[self._label])
            for label in (label for batch in batches for label in batch.column(0).to_pylist()):
                if isinstance(label, int) and 0 <= label < len(self._names):
                    yield self._names[label]
                elif isinstance(label, int | str) and str(label):
                    yield str(label)
                else:
                    raise InputError(f"{self.path}: {self._label}: numbers or names are expected")

    def read(self, row: int) -> bytes:
        """The image in a row.

        Raises:
            InputError: the file is damaged, or the row has no bytes.
        """
        number, place = divmod(row, _ROWS)
        with self._lock, self._errors():
            if number < self._next - len(self._kept) or not self._next:
                self._batches, self._next = self._images(), 0
                self._kept.clear()
            while self._next <= number:
                self._kept[self._next] = next(self._batches)
                self._kept.pop(self._next - _KEPT, None)
                self._next += 1
            image = self._kept[number][place]
        content = image.get("bytes") if isinstance(image, dict) else image
        if not isinstance(content, bytes):
            raise InputError(
                f"{self.path}: row {row}: has no bytes of an image, only a path to another file"
            )
        return content

    def _images(self) -> Iterator[list[Any]]:
        """The images in lists of `_ROWS`. Batches of pyarrow end with each row group."""
        rows: list[Any] = []
        for batch in self._file().iter_batches(batch_size=_ROWS, columns=[self._image]):
            rows += batch.column(0).to_pylist()
            while len(rows) >= _ROWS:
                yield rows[:_ROWS]
                del rows[:_ROWS]
        yield rows

    def _file(self) -> Any:
        # Slow to import.
        import pyarrow.parquet as pq

        # Rejects pipes.
        open_file(self.path).close()
        return pq.ParquetFile(self.path, buffer_size=_BUFFER, pre_buffer=False)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except InputError:
            raise
        except Exception:  # pyarrow raises many types of errors
            raise unexpected(self.path, "a Parquet file", magic=b"PAR1") from None


def _class_names(metadata: dict[bytes, bytes], column: str) -> list[str]:
    """The class names that `datasets` writes into the schema; empty if there are none."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        names = features[column]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return []
    is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return names if is_list else []
