"""Decode many images in all cores into one file. An interrupted run can be continued."""

import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from memmeta.data.formats.images import decode_photo, photo_pixels
from memmeta.data.images import as_stored
from memmeta.data.layouts.entries import Entry
from memmeta.data.sources import Images
from memmeta.errors import InputError

_ROWS_AT_ONCE = 4
"""Files that a thread takes at a time."""

_PIXELS_AT_ONCE = 30_000_000
"""Pixels that are decoded at a time, up to eight bytes each. A larger image is decoded alone."""

_BETWEEN_SAVES = 2.0
"""Seconds after which decoded images are on disk for good."""

_PREFIX = 256
"""Bytes of an image that mostly suffice to sort it."""


class Decoded:
    """Decoded images in a folder: uint8 [n, H, W, C] in one file, and which rows are there.

    A context manager that closes the files. Threads may write different rows at the same time.
    """

    def __init__(self, folder: Path, job: str, rows: int, shape: tuple[int, int, int]) -> None:
        """Open the folder, or create it.

        Args:
            folder: emptied if it belongs to another job.
            job: identifies the files to decode and their order.
            rows: n.
            shape: (H, W, C).

        Raises:
            OSError: the folder cannot be written.
        """
        self.folder = folder
        self.shape = shape
        self._bytes = shape[0] * shape[1] * shape[2]
        note = folder / "job"
        if not (note.is_file() and note.read_text(encoding="utf-8") == job):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            (folder / "images").write_bytes(b"")
            (folder / "done").write_bytes(bytes(rows))
            note.write_text(job, encoding="utf-8")
        self._images = (folder / "images").open("r+b", buffering=0)
        self._done = (folder / "done").open("r+b", buffering=0)
        self.done = np.frombuffer(self._done.read(), np.uint8).astype(bool)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._images.close()
        self._done.close()

    def write(self, row: int, image: Images) -> None:
        """Write one image, uint8 [H, W, C]. It counts as done after `save`."""
        content = np.ascontiguousarray(image).tobytes()
        written = os.pwrite(self._images.fileno(), content, row * self._bytes)
        if written < self._bytes:
            # The disk is full. Writing the rest raises the error.
            os.pwrite(self._images.fileno(), content[written:], row * self._bytes + written)

    def save(self) -> None:
        """Put the images that were written to disk, and then which rows are `done`."""
        os.fsync(self._images.fileno())
        os.pwrite(self._done.fileno(), self.done.tobytes(), 0)
        os.fsync(self._done.fileno())

    def sorted(self, rows: Sequence[int]) -> list[int]:
        """Rows in the order of `cache_files.canonical`, without all images in memory."""
        return sorted(rows, key=lambda row: (self._read(row, _PREFIX), _Whole(self, row)))

    def parts(self, rows: Sequence[int], most_bytes: int = 2**22) -> Iterator[Images]:
        """The images in some rows, as many at a time as fit into `most_bytes`."""
        count = max(1, most_bytes // self._bytes)
        for start in range(0, len(rows), count):
            content = b"".join(map(self.read, rows[start : start + count]))
            yield np.frombuffer(content, np.uint8).reshape(-1, *self.shape)

    def read(self, row: int) -> bytes:
        """The bytes of one image."""
        return self._read(row, self._bytes)

    def _read(self, row: int, count: int) -> bytes:
        # Not memory-mapped: all pages of the map would count as memory of this process.
        return os.pread(self._images.fileno(), min(count, self._bytes), row * self._bytes)


class _Whole:
    """Compares whole images, for those that begin alike."""

    __slots__ = ("decoded", "row")

    def __init__(self, decoded: Decoded, row: int) -> None:
        self.decoded = decoded
        self.row = row

    def __lt__(self, other: "_Whole") -> bool:
        return self.decoded.read(self.row) < self.decoded.read(other.row)


class _Room:
    """Bounds the pixels that threads decode at the same time."""

    def __init__(self, pixels: int) -> None:
        self._all = self._left = pixels
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        """Wait until there is room, and take it during the block."""
        pixels = min(pixels, self._all)
        with self._changed:
            self._changed.wait_for(lambda: self._left >= pixels)
            self._left -= pixels
        try:
            yield
        finally:
            with self._changed:
                self._left += pixels
                self._changed.notify_all()


def decode(
    entries: Sequence[Entry], decoded: Decoded, advance: Callable[[], None]
) -> dict[int, str]:
    """Decode the images that are not done yet.

    Pillow decodes without holding Python's lock, so threads use all cores.

    Args:
        entries: the image of each row.
        decoded: where to write.
        advance: called for each image.

    Returns:
        Why images cannot be used, by row.

    Raises:
        OSError: the disk is full.
        KeyboardInterrupt: a signal interrupted the work. The images decoded so far are saved.
    """
    room = _Room(_PIXELS_AT_ONCE)

    def work(rows: Sequence[int]) -> list[tuple[int, str]]:
        return [(row, _decode_one(entries[row], row, decoded, room)) for row in rows]

    todo: list[int] = np.flatnonzero(~decoded.done).tolist()
    groups = [todo[i : i + _ROWS_AT_ONCE] for i in range(0, len(todo), _ROWS_AT_ONCE)]
    broken = {}
    saved = time.monotonic()
    try:
        for results in _in_threads(work, groups):
            for row, problem in results:
                if problem:
                    broken[row] = problem
                decoded.done[row] = not problem
                advance()
            if time.monotonic() - saved > _BETWEEN_SAVES:
                decoded.save()
                saved = time.monotonic()
    finally:
        decoded.save()
    return broken


def _decode_one(entry: Entry, row: int, decoded: Decoded, room: _Room) -> str:
    """Decode an image. Returns why it cannot be used; empty if it can."""
    height, width, channels = decoded.shape
    try:
        content = entry.content.read()
        with room.taken(photo_pixels(entry.where, content)):
            photo = decode_photo(entry.where, content)
            image = as_stored([photo], (channels, height, width), entry.where).numpy()[0]
    except InputError as error:
        return error.message
    decoded.write(row, image)
    return ""


def _in_threads(
    work: Callable[[Sequence[int]], list[tuple[int, str]]], groups: Sequence[Sequence[int]]
) -> Iterator[list[tuple[int, str]]]:
    """Call `work` for each group. Yields its results in order; only a few groups wait."""
    threads = _cores()
    waiting: deque[Future[list[tuple[int, str]]]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for group in groups:
            waiting.append(pool.submit(work, group))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _cores() -> int:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
