"""Files of weights in configs."""

import hashlib
import re
from functools import lru_cache
from pathlib import Path

DOWNLOADED = "timm"
"""Stands for the weights that timm downloads for a model."""

_PINNED = re.compile(r"(?P<path>.+)@sha256:(?P<digest>[0-9a-f]{64})", re.DOTALL)


def pinned(weights: str) -> str:
    """Weights as configs record them: the absolute path of the file and the SHA-256 of its content.

    A file whose digest is given need not be there.

    Raises:
        ValueError: the file cannot be read.

    Examples:
        >>> Path("net.safetensors").write_bytes(b"weights")
        7
        >>> pinned("net.safetensors").rpartition("/")[-1]
        'net.safetensors@sha256:9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c'
    """
    if weights == DOWNLOADED or _PINNED.fullmatch(weights):
        return weights
    path = Path(weights).expanduser().absolute()
    try:
        status = path.stat()
        digest = _digest(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise ValueError(
            f"a local file is accepted, or {DOWNLOADED} to download those of timm; {path} cannot "
            f"be read ({error.strerror or error})"
        ) from None
    return f"{path}@sha256:{digest}"


def file_and_digest(weights: str) -> tuple[Path, str]:
    """The path of pinned weights, and the SHA-256 of their content."""
    match = _PINNED.fullmatch(weights)
    assert match is not None
    return Path(match["path"]), match["digest"]


def without_path(weights: str) -> str:
    """Pinned weights without the place of the file, which does not affect a run's numbers."""
    return weights if weights == DOWNLOADED else f"sha256:{file_and_digest(weights)[1]}"


@lru_cache(maxsize=64)
def _digest(path: Path, size: int, modified: int) -> str:
    """The SHA-256 of a file. Size and time of modification tell when it has to be read again."""
    del size, modified
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
