"""Downloads through torchvision, with a timeout."""

import socket
from pathlib import Path
from types import ModuleType
from typing import Any

from memmeta.errors import InputError
from memmeta.system.torchvision import import_torchvision

TIMEOUT = 60
"""Seconds without data after which a download fails."""


def fetch(dataset: str, data_root: Path, **options: Any) -> None:
    """Download one of torchvision's data sets into `data_root`, unless it is there already.

    Args:
        dataset: the name of the class in torchvision.datasets.
        data_root: created if it does not exist.
        options: further arguments of the class.

    Raises:
        InputError: a network or disk error.
    """
    source = getattr(torchvision_datasets(), dataset)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        source(root=str(data_root), download=True, **options)
    except (OSError, RuntimeError) as error:
        # Data sets of several files have the address of a folder instead.
        address = getattr(source, "url", None) or source.download_url_prefix
        raise InputError(
            f"{data_root}: {dataset} could not be downloaded from {address} ({error})"
        ) from None
    finally:
        socket.setdefaulttimeout(before)


def torchvision_datasets() -> ModuleType:
    """Import torchvision.datasets."""
    import_torchvision()
    import torchvision.datasets

    datasets: ModuleType = torchvision.datasets
    return datasets
