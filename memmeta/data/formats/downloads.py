"""Downloads, through torchvision: on demand only, and never without an end."""

import socket
from pathlib import Path
from types import ModuleType
from typing import Any

from memmeta.errors import InputError

TIMEOUT = 60
"""Seconds without a byte after which a download is given up."""


def fetch(dataset: str, data_root: Path, **options: Any) -> None:
    """Download one of torchvision's data sets into `data_root`; quick if it is there already.

    Args:
        dataset: the name of the class in torchvision.datasets.
        data_root: made if it is not there.
        options: further arguments of that class.

    Raises:
        InputError: the network or the disk refuses.
    """
    source = getattr(torchvision_datasets(), dataset)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        source(root=str(data_root), download=True, **options)
    except (OSError, RuntimeError) as error:
        # Sets of several files name the folder of these.
        address = getattr(source, "url", None) or source.download_url_prefix
        raise InputError(
            f"{data_root}: {dataset} could not be downloaded from {address} ({error})"
        ) from None
    finally:
        socket.setdefaulttimeout(before)


def torchvision_datasets() -> ModuleType:
    """The module torchvision.datasets.

    torchvision's compiled operators do not load beside a CPU build of PyTorch, and its import then
    ends in an error about two of them. Data sets need neither, so a declaration will do.
    """
    try:
        import torchvision.datasets
    except RuntimeError:
        import torch

        for operator in ("nms", "qnms"):
            torch.library.define(
                f"torchvision::{operator}",
                "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
            )
        import torchvision.datasets
    datasets: ModuleType = torchvision.datasets
    return datasets
