"""The journal of a sweep, on storage that may disappear and come back."""

import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

LINE = "line"
"""The key of a record's line number, from 1. Records of version 1 have none."""

WhenAvailable = Callable[[Callable[[], Any]], Any]
"""Runs an action on files in the sweep's folder, such as `SweepFolder.when_available`."""


class ResilientJournal(JournalFileBackend):
    """A journal file that waits for its folder, and never starts a new file in place of a lost one.

    It takes no lock: `sweep_lock` makes sure that only one process uses the journal.
    """

    def __init__(self, path: str, when_available: WhenAvailable) -> None:
        """Open the journal, or start one. The folder must be available.

        Args:
            path: the file.
            when_available: runs reads and writes of the file.
        """
        super().__init__(path, _NoLock(path))
        self._when_available = when_available
        self._size = self._lines = 0

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Read the entries from number `log_number_from` on."""
        read = super().read_logs
        yield from self._when_available(lambda: [*read(log_number_from)])

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write all entries, with their line numbers, by which `check_lines` finds lost lines.

        If the folder disappears in between, undo the write and repeat it.
        """
        path = Path(self._file_path)
        size = self._when_available(lambda: path.stat().st_size)
        if size != self._size:
            self._lines = self._when_available(lambda: _count_lines(path))
        numbered = [{**log, LINE: self._lines + number} for number, log in enumerate(logs, 1)]
        write = super().append_logs

        def append() -> None:
            os.truncate(self._file_path, size)
            write(numbered)

        self._when_available(append)
        self._lines += len(logs)
        self._size = self._when_available(lambda: path.stat().st_size)


def _count_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)


class _NoLock(JournalFileSymlinkLock):
    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass
