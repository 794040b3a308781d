"""A CSV file with the split of each class, for images of any layout."""

from pathlib import Path

from memmeta.data.layouts import tables
from memmeta.errors import InputError, shortened


def read_splits(path: Path) -> dict[str, str]:
    """Read the split of each class from a CSV file with the columns label (or class) and split.

    Raises:
        InputError: not such a table, or a class is in two splits.
    """
    splits: dict[str, str] = {}
    for where, (label, text, _) in tables.rows(path, tables.LABEL, tables.SPLIT):
        split = tables.checked_split(text, where)
        if splits.setdefault(label, split) != split:
            raise InputError(
                f"{where}: class {shortened(label)} is in {split} and in {splits[label]}; splits "
                "are by class"
            )
    return splits
