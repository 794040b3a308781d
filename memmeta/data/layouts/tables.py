"""CSV files with the columns file and label: one with an optional column split, or one a split."""

import codecs
import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from memmeta.data.formats.foreign import open_file, unexpected
from memmeta.data.layouts.entries import Below, Entry, FilePart, split_named, with_suffix
from memmeta.errors import InputError, shortened

FORM = "a table"
LISTS_PATHS = True

FILE = ("file", "filename", "file_name", "image_name", "path")
LABEL = ("label", "class_name", "class")
SPLIT = ("split",)
"""Names of columns; the first that a table has counts."""


def files(place: Path) -> list[Path]:
    """See `Layout.files`: tables named after splits, or else the only table with the columns.

    Raises:
        InputError: several tables are not named after splits.
    """
    tables = [path for path in with_suffix(place, ".csv") if _lists_images(path)]
    by_split = [path for path in tables if split_named(path.stem)]
    if len(by_split) > 1:
        return by_split
    if len(tables) > 1:
        raise InputError(
            f"{place}: several tables of images ({', '.join(path.name for path in tables)}); name "
            "one of them, or call them train.csv, val.csv and test.csv"
        )
    return tables


def entries(files: list[Path], images: Path | None) -> Iterator[Entry]:
    """See `Layout.entries`. Without `images`, files may also be in a folder `images`."""
    seen: dict[Path, str] = {}
    for path in files:
        split = split_named(path.stem) if len(files) > 1 else None
        below: Below | None = None
        for where, (file, label, own_split) in rows(path, FILE, LABEL, optional=SPLIT):
            below = below or Below(images or _base(path, file))
            image = below.resolve(file, where)
            if image in seen:
                raise InputError(
                    f"{where}: {shortened(file)} is listed twice, first in {seen[image]}"
                )
            seen[image] = where
            yield Entry(
                split or (checked_split(own_split, where) if own_split else None),
                label,
                str(image),
                FilePart(image),
            )


def rows(
    path: Path, *columns: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[tuple[str, list[str]]]:
    """Yield the place of each row, and its cells.

    Args:
        path: the table, in UTF-8 or UTF-16.
        columns: the names that each column may have. Their cells must not be empty.
        optional: the names of a column that may be missing.

    Raises:
        InputError: not such a table.
    """
    expected = f"a CSV file with the columns {' and '.join(map(' or '.join, columns))}"
    try:
        with _opened(path) as text:
            reader = csv.reader(text)
            header = _header(reader)
            places = [_column(header, names) for names in columns]
            if None in places:
                raise unexpected(path, expected)
            places.append(_column(header, optional))
            for row in filter(None, reader):
                where = f"{path}: line {reader.line_num}"
                cells = [
                    row[place].strip() if place is not None and place < len(row) else ""
                    for place in places
                ]
                if not all(cells[: len(columns)]):
                    raise InputError(f"{where}: a cell is empty; expected {expected}")
                yield where, cells
    except (csv.Error, UnicodeDecodeError):
        raise unexpected(path, expected) from None


def checked_split(text: str, where: str) -> str:
    """The split that a cell names.

    Raises:
        InputError: it names none.
    """
    split = split_named(text)
    if split is None:
        raise InputError(f"{where}: split: train, val or test is accepted, got {shortened(text)}")
    return split


def _opened(path: Path) -> io.TextIOWrapper:
    """Open a text file in UTF-8 or UTF-16, without its byte-order mark."""
    file = open_file(path)
    marked = file.peek(2).startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return io.TextIOWrapper(file, "utf-16" if marked else "utf-8-sig", newline="")


def _header(reader: Iterator[list[str]]) -> list[str]:
    return [cell.strip().lower() for cell in next(reader, ())]


def _lists_images(path: Path) -> bool:
    """Whether a file is a table of images, judged by its header."""
    try:
        with _opened(path) as text:
            header = _header(csv.reader(text))
    except (csv.Error, UnicodeDecodeError):
        return False
    return all(_column(header, names) is not None for names in (FILE, LABEL))


def _column(header: Sequence[str], names: Sequence[str]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)


def _base(table: Path, file: str) -> Path:
    """The folder to which the paths of a table are relative, judged by its first file."""
    folder = table.parent / "images"
    is_there = "\0" not in file and (folder / file).exists()
    return folder if is_there and not (table.parent / file).exists() else table.parent
