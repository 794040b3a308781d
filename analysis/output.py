"""Output files: written whole or not at all, with one message if that fails."""

from pathlib import Path

from memmeta.errors import cannot_write
from memmeta.system import files


def write_file(path: Path, content: bytes) -> None:
    """Write `content` to `path`, creating its folders; an existing file is replaced.

    Raises:
        InputError: `path` cannot be written.
    """
    try:
        with files.atomic_write(path) as file:
            file.write(content)
    except OSError as error:
        raise cannot_write(path, error) from None
