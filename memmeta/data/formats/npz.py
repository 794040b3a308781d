"""Arrays in .npz files, read a few rows at a time."""

import math
import struct
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from memmeta.data.formats.foreign import Budget, open_file, unexpected
from memmeta.data.sources import Images
from memmeta.errors import InputError, cannot_read

LOCAL_HEADER = struct.Struct("<26xHH")
"""The header of a zip member: lengths of its name and of the extra field before its content."""


class NpzRows:
    """The images of one array in an .npz file, read on demand.

    Only uncompressed arrays, as `numpy.savez` writes them, can be read in parts. Uses plain reads
    instead of a memory map, whose pages would count as memory of the process.
    """

    def __init__(self, path: Path, key: str, shape: tuple[int, ...]) -> None:
        """Locate the images.

        Args:
            path: the file.
            key: the name of the array.
            shape: shape of one image.

        Raises:
            InputError: the file is damaged, or has no uncompressed array of uint8 [n, *shape] with
                this name.
        """
        wanted = f"expected uint8 [n, {', '.join(map(str, shape))}] under the key {key}"
        try:
            with open_file(path) as file, zipfile.ZipFile(file) as archive:
                info = archive.getinfo(f"{key}.npy")
                if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
                    raise InputError(
                        f"{path}: {key} is compressed and cannot be read in parts; "
                        "save it with numpy.savez"
                    )
                file.seek(info.header_offset)
                file.seek(sum(LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))), 1)
                begin = file.tell()
                array_shape, dtype = _read_header(file)
                self._start = file.tell()
                if dtype != np.uint8 or array_shape[1:] != shape:
                    raise InputError(f"{path}: {wanted}, got {dtype} {list(array_shape)}")
                if self._start - begin + math.prod(array_shape) != info.file_size:
                    raise InputError(f"{path}: the size of {key} does not match its shape")
        except InputError:
            raise
        except OSError as error:
            raise cannot_read(path, error) from None
        except Exception:  # damaged archives and headers raise many types of errors
            raise unexpected(path, "an .npz file", f": {wanted}", b"PK") from None
        self.path = path
        self._count = array_shape[0]
        self._shape = shape

    def __len__(self) -> int:
        return self._count

    def read(self, rows: NDArray[np.int64]) -> Images:
        """Read the images with the given indices, uint8 [len(rows), *shape].

        Raises:
            InputError: the file is truncated.
        """
        Budget.for_file(self.path).take(len(rows) * math.prod(self._shape))
        images = np.empty((len(rows), *self._shape), np.uint8)
        with open_file(self.path) as file:
            for image, row in zip(images, rows, strict=True):
                file.seek(self._start + int(row) * image.nbytes)
                if file.readinto(image.data) != image.nbytes:
                    raise InputError(f"{self.path}: truncated")
        return images


def _read_header(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of a .npy file."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    else:
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    if fortran:
        raise ValueError("Fortran order is not supported")
    return shape, dtype
