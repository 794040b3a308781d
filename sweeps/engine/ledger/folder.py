"""The folder of a sweep, on storage that may go away and come back while the sweep runs."""

import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

from memmeta.system import files
from memmeta.system.stopping import STOP

T = TypeVar("T")

_POLL = 1.0
"""Seconds between two looks at a folder that is away."""


def _say_nothing(text: str) -> None:
    del text


class SweepFolder(NamedTuple):
    """A folder as the driver found it, for its own process and for its workers on any node.

    A file in it holds a token of this driver, so that an empty mount point or another folder in
    its place is not taken for it. The folder is never made anew.
    """

    path: Path
    token: str

    @classmethod
    def claimed(cls, path: Path) -> "SweepFolder":
        """The folder for a driver that begins, without what killed writers left in it.

        Raises:
            OSError: it cannot be written.
        """
        folder = cls(path, uuid.uuid4().hex)
        folder.checkpoints.mkdir(exist_ok=True)
        files.remove_abandoned(path)
        folder._write("")
        return folder

    @property
    def checkpoints(self) -> Path:
        """Where trials leave their states. The driver has made it."""
        return self.path / "checkpoints"

    def is_here(self) -> bool:
        """Whether the path leads to the folder now."""
        return self._read() is not None

    def ask_to_save(self) -> None:
        """Have all trials save themselves at their next step."""
        # Away, it cannot be asked for, and nothing could be saved.
        with suppress(OSError):
            self._write(_SAVE)

    def asks_to_save(self) -> bool:
        """Whether the driver has asked for it."""
        return self._read() == _SAVE

    def steadily(self, act: Callable[[], T], say: Callable[[str], None] = _say_nothing) -> T:
        """Do `act`, and while the folder is away wait and then do it again.

        Args:
            act: reads or writes in the folder.
            say: is told when the waiting begins.

        Raises:
            OSError: `act` failed although the folder is here.
            KeyboardInterrupt: this process was asked to stop while it waited.
        """
        while True:
            self._wait(say)
            try:
                return act()
            except OSError:
                if self.is_here():
                    raise

    def _wait(self, say: Callable[[str], None]) -> None:
        if self.is_here():
            return
        if not STOP.requested:
            say(f"{self.path}: the storage went away; waiting for it to come back")
        while not self.is_here():
            if STOP.requested:
                raise KeyboardInterrupt
            time.sleep(_POLL)

    def _read(self) -> str | None:
        """What the driver says, or None where this is not its folder."""
        # To open a file asks the server, where NFS answers other questions from memory.
        with suppress(OSError, ValueError):
            token, _, said = self._file.read_text(encoding="utf-8").partition(" ")
            return said if token == self.token else None
        return None

    def _write(self, said: str) -> None:
        with files.whole(self._file, below=self.path) as file:
            file.write(f"{self.token} {said}".encode())

    @property
    def _file(self) -> Path:
        return self.path / "driver"


_SAVE = "save"
