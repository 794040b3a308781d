"""`memmeta data`: list and download data sets."""

import copy
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from memmeta import data as data_sets
from memmeta.command_line import Group, NameOf, cache_option, data_root_option
from memmeta.data import DATA_SETS
from memmeta.data.sources import DataSource, ImageSource
from memmeta.errors import InputError


@click.group(cls=Group, epilog="Example: memmeta data list --data-root data")
def data() -> None:
    """List and download data sets."""


@data.command(epilog="Example: memmeta data download cifar_fs --data-root data")
@click.argument("name", type=NameOf([*DATA_SETS]), metavar="NAME")
@data_root_option
@cache_option
def download(name: str, data_root: Path, cache: Path | None) -> None:
    """Download the data set NAME, where that is possible, and prepare its cache."""
    data_sets.download(name, data_root)
    click.echo(f"ready: {data_sets.prepare(name, data_root, cache)}")


@data.command("list", epilog="Example: memmeta data list --data-root data")
@data_root_option
@cache_option
def list_(data_root: Path, cache: Path | None) -> None:
    """List the data sets, whether they are in the data root, and how to get them."""
    table = Table("data set", "state", "how to get it", box=None, pad_edge=False)
    for name in DATA_SETS:
        source = DATA_SETS[name]
        table.add_row(name, _state(source, data_root, cache), _way(source))
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
