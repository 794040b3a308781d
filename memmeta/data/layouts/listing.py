"""Recognise the layout of a folder, and list its images."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from memmeta.data.layouts import folders, json_lists, parquet, tables, webdataset
from memmeta.data.layouts.entries import Entry, Layout, LeftOut
from memmeta.errors import InputError, shortened, shown

_LAYOUTS: tuple[Layout, ...] = (json_lists, tables, parquet, webdataset, folders)

_ACCEPTED = (
    "<class>/*.jpg, {train,val,test}/<class>/*.jpg, CSV tables with the columns file and label, "
    "{base,val,novel}.json, *.parquet, or *.tar shards"
)

_MOST_IMAGES = 10_000_000
"""Images of a data set. The list of them is in memory."""


@dataclass(frozen=True)
class Listing:
    """The images of a folder."""

    form: str
    """The layout in words."""
    entries: list[Entry]
    left_out: list[Path]
    """Files among the images that are not images, by their names."""

    def fingerprint(self) -> str:
        """Hex SHA-256 of the list, and of the sizes and times of the files."""
        digest = hashlib.sha256()
        for split, label, where, content in self.entries:
            line = f"{split}\0{label}\0{where}\0{content.stamp()}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def list_images(place: Path, images: Path | None = None) -> Listing:
    """List the images of a folder, or of one file that lists or contains images.

    Args:
        place: the folder or file.
        images: the folder to which paths in tables and lists are relative.

    Raises:
        InputError: the folder is missing, has no known layout, or is damaged.
    """
    if not place.exists():
        raise InputError(f"{place}: no such folder")
    for layout in _LAYOUTS:
        files = layout.files(place)
        if not files:
            continue
        if images and not layout.LISTS_PATHS:
            raise InputError(
                f"{images}: is for tables and lists that name files; {place} has {layout.FORM}"
            )
        listing = Listing(layout.FORM, [], [])
        for found in layout.entries(files, images):
            if isinstance(found, LeftOut):
                listing.left_out.append(found.path)
            else:
                listing.entries.append(_checked(found))
            if len(listing.entries) > _MOST_IMAGES:
                raise InputError(f"{place}: more than {_MOST_IMAGES:,} images")
        if not listing.entries:
            break
        return listing
    raise InputError(f"{place}: no images; accepted are {_ACCEPTED}")


def _checked(entry: Entry) -> Entry:
    """Return an entry whose class has a usable name."""
    try:
        entry.label.encode()
    except UnicodeEncodeError:
        raise InputError(
            f"{entry.where}: the name of the class is not text: {shown(entry.label)}"
        ) from None
    if "\0" in entry.label:
        raise InputError(f"{entry.where}: class: {shortened(entry.label)} is not accepted")
    return entry
