"""`memmeta data`: list, download, prepare and show data sets."""

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from memmeta import data as data_sets
from memmeta.command_line import Group, NameOf, cache_option, data_root_option
from memmeta.data import DATA_SETS, own
from memmeta.data.class_splits import Fractions, as_fractions
from memmeta.data.sources import SPLITS, DataSource, ImageSource
from memmeta.errors import InputError, cannot_write, shortened
from memmeta.progress import ConsoleProgress
from memmeta.settings.limits import MOST_PIXELS
from memmeta.system import files

if TYPE_CHECKING:
    from PIL.Image import Image

    from memmeta.data.dataset import SplitName


class _Split(click.ParamType[Fractions | Path]):
    """Three shares, or a file."""

    name = "SHARES|FILE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Fractions | Path:
        """Parse the option."""
        try:
            return as_fractions(value) or Path(value)
        except ValueError as error:
            self.fail(f"{error}, got {value}", param, ctx)


@click.group(cls=Group, epilog="Example: memmeta data list --data-root data")
def data() -> None:
    """List and download data sets, prepare own images, and show what is in them."""


@data.command(epilog="Example: memmeta data download cifar_fs --data-root data")
@click.argument("name", type=NameOf([*DATA_SETS]), metavar="NAME")
@data_root_option
@cache_option
def download(name: str, data_root: Path, cache: Path | None) -> None:
    """Download the data set NAME, where that is possible, and prepare its cache."""
    data_sets.download(name, data_root)
    click.echo(f"ready: {data_sets.prepare(name, data_root, cache)}")


_PREPARE = "Example: memmeta data prepare birds --folder photos/ --split 0.64,0.16,0.2"


@data.command(epilog=_PREPARE)
@click.argument("name")
@click.option(
    "--folder", required=True, type=click.Path(path_type=Path),
    help="Folder of images, or a file that lists or contains them.",
)  # fmt: skip
@click.option(
    "--images", type=click.Path(path_type=Path),
    help="Folder to which paths in tables and lists are relative; default: that of the list.",
)  # fmt: skip
@click.option(
    "--split", type=_Split(),
    help="Shares of the classes in train, val and test, or a CSV file with the columns label and "
    "split; default: the folder's own splits, else 0.64,0.16,0.2.",
)  # fmt: skip
@click.option(
    "--split-seed", type=int, default=0, show_default=True,
    help="Another seed draws another split.",
)  # fmt: skip
@click.option(
    "--image-size", type=click.IntRange(1, MOST_PIXELS), default=84, show_default=True,
    help="Height and width.",
)  # fmt: skip
@click.option("--grey", is_flag=True, help="One channel instead of three.")
@click.option("--skip-broken", is_flag=True, help="Leave out images that cannot be decoded.")
@data_root_option
@cache_option
def prepare(
    name: str,
    folder: Path,
    images: Path | None,
    split: Fractions | Path | None,
    split_seed: int,
    image_size: int,
    grey: bool,
    skip_broken: bool,
    data_root: Path,
    cache: Path | None,
) -> None:
    """Prepare the images of a folder as data set NAME, for use in configs: {name: NAME}.

    The folder has a folder for each class (photos/CLASS/*.jpg), or {train,val,test}/CLASS/*.jpg,
    CSV tables, {base,val,novel}.json, Parquet files or tar shards. Splits are by class. The same
    command continues an interrupted preparation.
    """
    # PyTorch takes seconds to import.
    from memmeta.data.preparation import Recipe, prepare_images

    recipe = Recipe(name, folder, images, split, split_seed, image_size, channels=1 if grey else 3)
    progress = ConsoleProgress(Console(stderr=True, highlight=False))
    path = prepare_images(recipe, data_root, cache, skip_broken=skip_broken, progress=progress)
    click.echo(f"ready: {path}")
    command = f"memmeta data show {name} --out {name}.png --data-root {data_root}"
    click.echo(f"look at it: {command}" + (f" --cache {cache}" if cache else ""))


@data.command(epilog="Example: memmeta data show glyphs --out glyphs.png")
@click.argument("name")
@click.option("--out", type=click.Path(path_type=Path), help="Draw a few tasks into this file.")
@click.option(
    "--split", type=click.Choice(SPLITS), default="train", show_default=True,
    help="Split of the tasks that are drawn.",
)  # fmt: skip
@data_root_option
@cache_option
def show(
    name: str, out: Path | None, split: "SplitName", data_root: Path, cache: Path | None
) -> None:
    """Print the classes, images, sizes and equal images of data set NAME, and draw tasks."""
    # PyTorch takes seconds to import.
    from memmeta.data.dataset import ImageDataset
    from memmeta.data.showing import counts, equal_images, picture

    dataset = data_sets.load(name, data_root, cache)
    if not isinstance(dataset, ImageDataset):
        raise InputError(f"{name}: has no images to show")
    table = Table("split", "classes", "images", "images per class", box=None, pad_edge=False)
    for row in counts(dataset):
        per_class = f"{row.fewest} to {row.most}" if row.fewest < row.most else str(row.most)
        table.add_row(row.split, f"{row.classes:,}", f"{row.images:,}", per_class)
    Console(highlight=False).print(table)
    channels, height, width = dataset.input_shape
    click.echo(f"size: {width}x{height}, {'grey' if channels == 1 else 'colour'}")
    equal = equal_images(dataset)
    click.echo(
        f"equal images: {equal.in_class} in the same class, {equal.in_split} in another class, "
        f"{equal.across_splits} in another split"
        + (f" (such as {shortened(equal.example)})" if equal.example else "")
    )
    if out is not None:
        _save(picture(dataset, split), out)
        click.echo(f"wrote {out}")


def _save(image: "Image", out: Path) -> None:
    suffix = out.suffix.lower()
    if suffix not in (".png", ".jpg", ".jpeg"):
        raise InputError(f"--out {out}: a name that ends with .png or .jpg is accepted")
    try:
        with files.atomic_write(out) as file:
            image.save(file, "PNG" if suffix == ".png" else "JPEG")
    except OSError as error:
        raise cannot_write(out, error) from None


@data.command("list", epilog="Example: memmeta data list --data-root data")
@data_root_option
@cache_option
def list_(data_root: Path, cache: Path | None) -> None:
    """List the data sets, whether they are in the data root, and how to get them."""
    table = Table("data set", "state", "how to get it", box=None, pad_edge=False)
    for name in DATA_SETS:
        source = DATA_SETS[name]
        table.add_row(name, _state(source, data_root, cache), _way(source))
    for name in own.names(cache or data_root / "cache"):
        if name not in DATA_SETS:
            table.add_row(name, "prepared", "memmeta data prepare, from own images")
    Console(highlight=False).print(table)


def _state(source: DataSource, data_root: Path, cache: Path | None) -> str:
    # PyTorch takes seconds to import.
    from memmeta.data import store

    if not isinstance(source, ImageSource) or source.drawn:
        return "built in"
    try:
        return store.state(source, data_root, cache)
    except InputError as error:
        return f"unreadable: {error}"


def _way(source: DataSource) -> str:
    if not isinstance(source, ImageSource) or source.drawn:
        return "nothing to get"
    if source.download is not None:
        return f"memmeta data download {source.name}"
    return "put its files into the data root (docs/how-to/data.md lists them)"


download_before = copy.copy(download)
"""`memmeta download`, the name of `memmeta data download` in earlier versions."""
download_before.hidden = True
