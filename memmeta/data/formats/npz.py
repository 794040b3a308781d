"""Arrays in .npz files, read a few rows at a time."""

import math
import struct
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from memmeta.data.formats.foreign import Budget, open_file, unexpected, unreadable
from memmeta.data.sources import Images
from memmeta.errors import InputError

LOCAL_HEADER = struct.Struct("<26xHH")
"""Of a member of a zip file; the lengths of its name and of what else stands before its content."""


class NpzRows:
    """The images of one array in an .npz file, without any of them in memory.

    A member that is not compressed, as `numpy.savez` writes it, lies in the file as it is. Plain
    reads rather than a memory map: pages of a map count as memory of the process.
    """

    def __init__(self, path: Path, key: str, shape: tuple[int, ...]) -> None:
        """Find the images.

        Args:
            path: of the file.
            key: the name of the array.
            shape: of one image.

        Raises:
            InputError: there is no such array of uint8 [n, *shape], or it is compressed, or the
                file is damaged.
        """
        wanted = f"expected uint8 [n, {', '.join(map(str, shape))}] under the key {key}"
        try:
            with open_file(path) as file, zipfile.ZipFile(file) as archive:
                info = archive.getinfo(f"{key}.npy")
                if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
                    raise InputError(
                        f"{path}: {key} is compressed, which allows no reading of parts; "
                        "write it again with numpy.savez"
                    )
                file.seek(info.header_offset)
                file.seek(sum(LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))), 1)
                begin = file.tell()
                found, dtype = _read_header(file)
                self._start = file.tell()
                if dtype != np.uint8 or found[1:] != shape:
                    raise InputError(f"{path}: {wanted}, got {dtype} {list(found)}")
                if self._start - begin + math.prod(found) != info.file_size:
                    raise InputError(f"{path}: {key} is not of the size that its shape asks for")
        except InputError:
            raise
        except OSError as error:
            raise unreadable(path, error) from None
        except Exception:  # damaged archives and headers raise many kinds
            raise unexpected(path, "an .npz file", f": {wanted}", b"PK") from None
        self.path = path
        self._count = found[0]
        self._shape = shape

    def __len__(self) -> int:
        return self._count

    def read(self, rows: NDArray[np.int64]) -> Images:
        """Some of the images, uint8 [len(rows), *shape].

        Raises:
            InputError: the file ends before them.
        """
        Budget.of(self.path).take(len(rows) * math.prod(self._shape))
        images = np.empty((len(rows), *self._shape), np.uint8)
        with open_file(self.path) as file:
            for image, row in zip(images, rows, strict=True):
                file.seek(self._start + int(row) * image.nbytes)
                if file.readinto(image.data) != image.nbytes:
                    raise InputError(f"{self.path}: cut short")
        return images


def _read_header(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of a .npy file."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    else:
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    if fortran:
        raise ValueError("columns first")
    return shape, dtype
