"""The folder of a sweep, on storage that may disappear and come back while the sweep runs."""

import errno
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

from memmeta.system import files
from memmeta.system.stopping import STOP

T = TypeVar("T")

STORAGE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE)
"""Error numbers of full disks and lost file systems. They do not indicate a bug."""

_POLL_SECONDS = 1.0
"""Interval between checks for a folder that is unavailable."""

_SAVE = "save"
"""Written to the driver's file when all trials should save themselves."""


def _print_nothing(text: str) -> None:
    del text


class SweepFolder(NamedTuple):
    """The folder of a sweep, as the driver found it. The driver and workers on all nodes use it.

    A file in the folder holds a token of the driver. It distinguishes the folder from an empty
    mount point or another folder at the same path. The folder is never created again.
    """

    path: Path
    token: str

    @classmethod
    def claimed(cls, path: Path) -> "SweepFolder":
        """Claim the folder for a new driver, and remove partial files of killed processes.

        Raises:
            OSError: the folder cannot be written.
        """
        folder = cls(path, uuid.uuid4().hex)
        folder.checkpoints.mkdir(exist_ok=True)
        files.remove_abandoned(path)
        folder._write("")
        return folder

    @property
    def checkpoints(self) -> Path:
        """Folder for the checkpoints of trials. It exists."""
        return self.path / "checkpoints"

    def checkpoint(self, key: str) -> Path:
        """The checkpoint of the trial with this `RunConfig.key`."""
        return self.checkpoints / key / "trainer.pt"

    def is_here(self) -> bool:
        """Whether the folder is available now."""
        return self._read() is not None

    def ask_to_save(self) -> None:
        """Ask all trials to save themselves at their next step."""
        # If the folder is unavailable, trials could not save themselves anyway.
        with suppress(OSError):
            self._write(_SAVE)

    def asks_to_save(self) -> bool:
        """Whether the driver asked all trials to save themselves."""
        return self._read() == _SAVE

    def when_available(
        self, action: Callable[[], T], say: Callable[[str], None] = _print_nothing
    ) -> T:
        """Run `action`. While the folder is unavailable, wait and run it again.

        Args:
            action: reads or writes files in the folder.
            say: called with a message when the waiting starts.

        Raises:
            OSError: `action` failed although the folder is available.
            KeyboardInterrupt: this process was asked to stop while it waited.
        """
        while True:
            self._wait(say)
            try:
                return action()
            except OSError:
                if self.is_here():
                    raise

    def _wait(self, say: Callable[[str], None]) -> None:
        if self.is_here():
            return
        if not STOP.requested:
            say(f"{self.path}: the storage is unavailable; waiting for it")
        while not self.is_here():
            if STOP.requested:
                raise KeyboardInterrupt
            time.sleep(_POLL_SECONDS)

    def _read(self) -> str | None:
        """The driver's request ("" for none), or None if this is not the driver's folder."""
        # Opening a file makes NFS ask the server. It answers other queries from a cache.
        with suppress(OSError, ValueError):
            token, _, request = self._file.read_text(encoding="utf-8").partition(" ")
            return request if token == self.token else None
        return None

    def _write(self, request: str) -> None:
        with files.atomic_write(self._file, below=self.path) as file:
            file.write(f"{self.token} {request}".encode())

    @property
    def _file(self) -> Path:
        return self.path / "driver"
