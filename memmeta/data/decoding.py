"""Decode many images in all cores into one file. An interrupted run can be continued."""

import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Self, TypeVar

import numpy as np

from memmeta.data.decoder import Decoder, DecoderProcess, decode_files
from memmeta.data.layouts.entries import Entry
from memmeta.data.sources import Images
from memmeta.errors import InputError

_FILES_AT_ONCE = 8
"""Files that a decoder takes at a time."""

_FILES_OF_A_PROCESS = 500
"""Fewer files are decoded sooner without a further process, which takes half a second to start."""

_BYTES_AT_ONCE = 2**26
"""Bytes of files that are decoded at a time. A decoded photograph needs ten to twenty times the
memory."""

R = TypeVar("R")

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

    def write(self, row: int, content: bytes) -> None:
        """Write one image, the bytes of uint8 [H, W, C]. It counts as done after `save`."""
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
    """Bounds the bytes of files that are decoded at the same time."""

    def __init__(self, most: int) -> None:
        self._all = self._left = most
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, count: int) -> Iterator[None]:
        """Wait until there is room, and take it during the block."""
        count = min(count, self._all)
        with self._changed:
            self._changed.wait_for(lambda: self._left >= count)
            self._left -= count
        try:
            yield
        finally:
            with self._changed:
                self._left += count
                self._changed.notify_all()


def decode(
    entries: Sequence[Entry], decoded: Decoded, advance: Callable[[], None]
) -> dict[int, str]:
    """Decode the images that are not done yet, in all cores.

    Args:
        entries: the image of each row.
        decoded: where to write.
        advance: called for each image.

    Returns:
        Why images cannot be used, by row.

    Raises:
        OSError: the disk is full.
        FailedError: a process was lost.
        KeyboardInterrupt: a signal interrupted the work. The images decoded so far are saved.
    """
    todo: list[int] = np.flatnonzero(~decoded.done).tolist()
    groups = [todo[i : i + _FILES_AT_ONCE] for i in range(0, len(todo), _FILES_AT_ONCE)]
    room = _Room(_BYTES_AT_ONCE)
    broken = {}
    saved = time.monotonic()
    try:
        with _decoders(decoded.shape, len(todo)) as (decoders, count):

            def work(rows: Sequence[int]) -> dict[int, str]:
                decoder = decoders.get()
                try:
                    return _decode_group(entries, rows, decoded, decoder, room)
                finally:
                    decoders.put(decoder)

            for rows, problems in zip(groups, _in_threads(work, groups, count), strict=True):
                broken.update(problems)
                decoded.done[[row for row in rows if row not in problems]] = True
                for _ in rows:
                    advance()
                if time.monotonic() - saved > _BETWEEN_SAVES:
                    decoded.save()
                    saved = time.monotonic()
    finally:
        decoded.save()
    return broken


def _decode_group(
    entries: Sequence[Entry], rows: Sequence[int], decoded: Decoded, decoder: Decoder, room: _Room
) -> dict[int, str]:
    """Decode some images, and write them. Returns why images cannot be used, by row."""
    problems = {}
    files = {}
    for row in rows:
        try:
            files[row] = entries[row].where, entries[row].content.read()
        except InputError as error:
            problems[row] = error.message
    with room.taken(sum(len(content) for _, content in files.values())):
        results = decoder([*files.values()])
    for row, result in zip(files, results, strict=True):
        if isinstance(result, str):
            problems[row] = result
        else:
            decoded.write(row, result)
    return problems


@contextmanager
def _decoders(
    shape: tuple[int, int, int], files: int
) -> Iterator[tuple[SimpleQueue[Decoder], int]]:
    """Yield decoders for images of the shape (H, W, C), and their number."""
    height, width, channels = shape
    count = min(_cores(), files // _FILES_OF_A_PROCESS)
    queue: SimpleQueue[Decoder] = SimpleQueue()
    if count < 2:
        queue.put(partial(decode_files, shape=(channels, height, width)))
        yield queue, 1
        return
    with ExitStack() as stack:
        for _ in range(count):
            process = DecoderProcess((channels, height, width))
            stack.callback(process.close)
            queue.put(process)
        yield queue, count


def _in_threads(
    work: Callable[[Sequence[int]], R], groups: Sequence[Sequence[int]], threads: int
) -> Iterator[R]:
    """Call `work` for each group. Yields its results in order; only a few groups wait."""
    waiting: deque[Future[R]] = deque()
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
