"""Decode image files, in this process or in another one. Does not import PyTorch.

Python runs one thread at a time, so threads that decode small files hardly use a second core.
"""

import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np

from memmeta.data.fitting import fitted, upright
from memmeta.data.formats.images import decode_photo
from memmeta.errors import FailedError, InputError

Files = Sequence[tuple[str, bytes]]
"""Image files: the place of each, for messages, and its bytes."""

Shape = tuple[int, int, int]
"""(C, H, W)."""

Pixels = list[bytes | str]
"""For each file: uint8 [H, W, C] as bytes, or why it cannot be used."""

Decoder = Callable[[Files], Pixels]

_START = """
import sys
sys.path[:] = {path!r}
from memmeta.data.decoder import serve
serve({shape!r})
"""
"""The program of a decoder process. It finds the same packages as this process."""


def decode_files(files: Files, shape: Shape) -> Pixels:
    """Decode files in this process."""
    return [_decoded(where, content, shape) for where, content in files]


def _decoded(where: str, content: bytes, shape: Shape) -> bytes | str:
    try:
        image = fitted(upright(decode_photo(where, content), where), shape, where)
    except InputError as error:
        return error.message
    return np.ascontiguousarray(image).tobytes()


class DecoderProcess:
    """A process that decodes files. One thread at a time may call it."""

    def __init__(self, shape: Shape) -> None:
        program = _START.format(path=sys.path, shape=shape)
        self._process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __call__(self, files: Files) -> Pixels:
        """Decode files.

        Raises:
            FailedError: the process has ended.
        """
        assert self._process.stdin
        assert self._process.stdout
        try:
            pickle.dump(files, self._process.stdin)
            self._process.stdin.flush()
            pixels: Pixels = pickle.load(self._process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError):
            raise FailedError(
                "a process that decodes images was lost (killed, or out of memory); the same "
                "command continues"
            ) from None
        return pixels

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


def serve(shape: Shape) -> None:
    """Decode the files that arrive at stdin, until it is closed."""
    # Ctrl-C reaches all processes of a terminal. The parent ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(EOFError, BrokenPipeError):
        while True:
            files: Files = pickle.load(sys.stdin.buffer)
            pickle.dump(decode_files(files, shape), sys.stdout.buffer)
            sys.stdout.buffer.flush()
