"""Prepare own images: `memmeta data prepare`."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from memmeta.data import cache_files, class_splits, is_registered, own, store
from memmeta.data.class_splits import Fractions
from memmeta.data.decoding import Decoded, decode
from memmeta.data.layouts.listing import Listing, list_images
from memmeta.data.layouts.split_table import read_splits
from memmeta.data.sources import SPLITS
from memmeta.errors import InputError, cannot_read, shortened
from memmeta.progress import NoProgress, Progress
from memmeta.system.files import resolved

_MOST_NAMED = 8
"""Files that a message names."""

_DEFAULT_WAYS, _DEFAULT_IMAGES = 5, 20
"""Classes of a task, and its images per class in validation, unless a config says otherwise."""


@dataclass(frozen=True)
class Recipe:
    """How the images of a folder become a data set."""

    name: str
    """The name in configs: letters, digits, _ and -."""
    folder: Path
    """The folder of the images, or a file that lists or contains them."""
    images: Path | None = None
    """The folder to which listed paths are relative; None: that of the list."""
    split: Fractions | Path | None = None
    """Shares of the classes in train, val and test; or a CSV file with the split of each class.
    None: as the layout states, else `class_splits.DEFAULT`."""
    split_seed: int = 0
    """Another seed draws another split."""
    image_size: int = 84
    """Height and width to which images are resized, without keeping the ratio of the sides."""
    channels: int = 3
    """3, or 1 for grey."""

    def recorded(self) -> dict[str, Any]:
        """JSON values by which a cache tells whether it was made from this recipe.

        Raises:
            InputError: the table of splits cannot be read.
        """
        table = self.split if isinstance(self.split, Path) else None
        try:
            digest = hashlib.sha256(table.read_bytes()).hexdigest() if table else None
        except OSError as error:
            raise cannot_read(table or self.folder, error) from None
        return {
            "folder": str(resolved(self.folder)),
            "images": str(resolved(self.images)) if self.images else None,
            "split": list(self.split) if isinstance(self.split, tuple) else digest,
            "split_seed": self.split_seed,
            "image_size": self.image_size,
            "channels": self.channels,
        }


def prepare_images(
    recipe: Recipe,
    data_root: Path,
    cache: Path | None = None,
    *,
    skip_broken: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Prepare the images of a folder under a name, unless that was done before.

    All cores decode. Images are never in memory all at once. An interrupted preparation continues
    when the function is called again, if the files are the same. The cache is complete in itself:
    the folder is not needed any more.

    Args:
        recipe: the name, the folder and the form of the images.
        data_root: the folder with the data sets.
        cache: the folder of all caches; None: `cache` in the data root.
        skip_broken: leave out images that cannot be decoded, instead of refusing all.
        progress: display for the progress and the notes; None: no display.

    Returns:
        The folder of the cache.

    Raises:
        InputError: the folder has no known layout, images are broken, a class is in two splits, a
            split has no classes, the name is in use, or the cache cannot be written.

    Examples:
        >>> from PIL import Image
        >>> for angle in ("0", "90", "180"):
        ...     Path("photos", angle).mkdir(parents=True)
        ...     Image.linear_gradient("L").rotate(int(angle)).save(f"photos/{angle}/0.jpg")
        >>> prepare_images(Recipe("angles", Path("photos"), image_size=32), Path("mine")).name
        'angles'
    """
    _check_name(recipe.name)
    folder = store.cache_folder(recipe.name, data_root, cache)
    if _is_prepared(recipe, folder):
        return folder
    preparation = _Preparation(recipe, folder, skip_broken, progress or NoProgress())
    listing, splits = preparation.examine()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{recipe.name}.lock")):
            if not _is_prepared(recipe, folder):
                preparation.create(listing, splits)
    except OSError as error:
        raise store.unwritable(folder, error) from None
    return folder


def _check_name(name: str) -> None:
    if is_registered(name):
        raise InputError(
            f"{name}: is a data set of memmeta or of a package; give own images another name"
        )
    try:
        own.check_name(name)
    except ValueError as error:
        raise InputError(str(error)) from None


def _is_prepared(recipe: Recipe, folder: Path) -> bool:
    """Whether there is a complete cache of this recipe.

    Raises:
        InputError: there is one of another recipe.
    """
    if store.open_cache(recipe.name, folder) is None:
        return False
    before = json.loads((folder / cache_files.META).read_text(encoding="utf-8")).get(own.RECIPE)
    now = recipe.recorded()
    if before == now:
        return True
    before = before if isinstance(before, dict) else {}
    changed = ", ".join(
        f"{key} {shortened(str(before.get(key)))} instead of {value}"
        for key, value in now.items()
        if before.get(key) != value
    )
    raise InputError(
        f"{recipe.name}: was prepared with {changed}; choose another name, or delete {folder} to "
        "prepare it again"
    )


@dataclass(frozen=True)
class _Preparation:
    """One preparation.

    Attributes:
        recipe: what to prepare.
        folder: the folder of its cache.
        skip_broken: see `prepare_images`.
        progress: see `prepare_images`.
    """

    recipe: Recipe
    folder: Path
    skip_broken: bool
    progress: Progress

    def examine(self) -> tuple[Listing, dict[str, str]]:
        """List the images, and find the split of each class."""
        recipe = self.recipe
        self._say(f"listing {recipe.folder}")
        listing = list_images(recipe.folder, recipe.images)
        if listing.left_out:
            self._say(
                f"left out, not images: {len(listing.left_out)}, such as {listing.left_out[0]}"
            )
        splits = self._splits(listing)
        class_splits.check_all_used(splits)
        self._say(f"{listing.form}, {len(splits)} classes, {len(listing.entries):,} images")
        return listing, splits

    def create(self, listing: Listing, splits: Mapping[str, str]) -> None:
        """Decode the images and write the cache."""
        size, channels = self.recipe.image_size, self.recipe.channels
        shape = (size, size, channels)
        work = self.folder.with_name(f".{self.recipe.name}.decoded")
        job = f"{shape} {listing.fingerprint()}"
        count = len(listing.entries)
        with Decoded(work, job, count, shape) as decoded:
            done = int(decoded.done.sum())
            self._check_space((2 * count - done) * size * size * channels)
            if done:
                self._say(f"continuing: {done:,} of {count:,} images are decoded")
            try:
                with self.progress.bar(count, done, "images") as advance:
                    broken = decode(listing.entries, decoded, advance)
            except KeyboardInterrupt:
                self._say("interrupted; the same command continues")
                raise
            self._report_broken(list(broken.values()), count)
            rows = _rows(listing, broken)
            splits = self._without_empty(splits, rows)
            self._write(decoded, splits, rows, len(broken))
        shutil.rmtree(work, ignore_errors=True)
        self._note_few(splits, rows)

    def _splits(self, listing: Listing) -> dict[str, str]:
        recipe = self.recipe
        labels = {entry.label for entry in listing.entries}
        if isinstance(recipe.split, Path):
            splits = read_splits(recipe.split)
            for wrong, problem in (
                (labels - splits.keys(), "has no split of the class"),
                (splits.keys() - labels, f"{recipe.folder} has no images of the class"),
            ):
                if wrong:
                    raise InputError(f"{recipe.split}: {problem} {shortened(min(wrong))}")
            return splits
        if recipe.split is None:
            splits = class_splits.of_entries(
                (entry.split, entry.label) for entry in listing.entries
            )
            if splits:
                return splits
            shares = ",".join(map(str, class_splits.DEFAULT))
            self._say(f"no splits: classes are drawn, {shares}, seed {recipe.split_seed}")
        return class_splits.by_fractions(
            labels, recipe.split or class_splits.DEFAULT, recipe.split_seed
        )

    def _check_space(self, needed: int) -> None:
        free = shutil.disk_usage(self.folder.parent).free
        if free < needed:
            raise InputError(
                f"{self.folder.parent}: the preparation needs {needed / 2**30:.1f} GiB, "
                f"{free / 2**30:.1f} GiB are free; choose another folder with --cache or "
                "MEMMETA_CACHE"
            )

    def _report_broken(self, problems: Sequence[str], count: int) -> None:
        if not problems:
            return
        lines = [f"  {problem}" for problem in problems[:_MOST_NAMED]]
        more = len(problems) - _MOST_NAMED
        lines += [f"  and {more:,} more"] if more > 0 else []
        text = f"{self.recipe.name}: {len(problems):,} of {count:,} images cannot be used"
        if not self.skip_broken:
            hint = "--skip-broken of memmeta data prepare leaves them out"
            raise InputError("\n".join([f"{text}; {hint}:", *lines]))
        self.progress.line("\n".join([f"{text} and are left out:", *lines]))

    def _without_empty(
        self, splits: Mapping[str, str], rows: Mapping[str, list[int]]
    ) -> dict[str, str]:
        """The splits of classes that have images."""
        empty = sorted(splits.keys() - rows.keys())
        if empty:
            self._say(f"left out, without images: {', '.join(map(shortened, empty))}")
        left = {label: split for label, split in splits.items() if label in rows}
        class_splits.check_all_used(left)
        return left

    def _write(
        self,
        decoded: Decoded,
        splits: Mapping[str, str],
        rows: Mapping[str, list[int]],
        skipped: int,
    ) -> None:
        partial = self.folder.with_name(f".{self.recipe.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)

        def classes(split: str) -> Iterator[cache_files.SortedClass]:
            for label in sorted(label for label, own_split in splits.items() if own_split == split):
                ordered = decoded.sorted(rows[label])
                yield cache_files.SortedClass(label, len(ordered), decoded.parts(ordered))

        try:
            partial.mkdir()
            more = {own.RECIPE: self.recipe.recorded(), "skipped": skipped}
            copies = cache_files.write(partial, classes, more=more)
            shutil.rmtree(self.folder, ignore_errors=True)
            partial.rename(self.folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        store.report_copies(self.recipe.name, copies)

    def _note_few(self, splits: Mapping[str, str], rows: Mapping[str, list[int]]) -> None:
        counts = {split: [*splits.values()].count(split) for split in SPLITS}
        few = [f"{split} has {count}" for split, count in counts.items() if count < _DEFAULT_WAYS]
        if few:
            self._say(
                f"tasks have {_DEFAULT_WAYS} classes by default, and {', '.join(few)}: set ways in "
                "configs, or split in another way"
            )
        smallest = min(rows, key=lambda label: len(rows[label]))
        if len(rows[smallest]) < _DEFAULT_IMAGES:
            self._say(
                f"class {shortened(smallest)} has {len(rows[smallest])} images, and tasks need "
                f"shots + eval_queries of each class: 5 + 15 by default"
            )

    def _say(self, text: str) -> None:
        self.progress.line(f"{self.recipe.name}: {text}")


def _rows(listing: Listing, broken: Mapping[int, str]) -> dict[str, list[int]]:
    """The rows of each class."""
    rows: dict[str, list[int]] = {}
    for row, entry in enumerate(listing.entries):
        if row not in broken:
            rows.setdefault(entry.label, []).append(row)
    return rows
