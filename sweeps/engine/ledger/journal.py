"""The journal of a sweep, on storage that may go away and come back."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

Steadily = Callable[[Callable[[], Any]], Any]
"""Does something with the folder, and does it again where the folder was away."""


class SteadyJournal(JournalFileBackend):
    """A journal that is never begun in the place of one that went away.

    For one process alone, which `only_one` sees to: it locks nothing.
    """

    def __init__(self, path: str, steadily: Steadily) -> None:
        """Open the journal, or begin one; the folder is here.

        Args:
            path: the file.
            steadily: as `SweepFolder.steadily`.
        """
        super().__init__(path, _NoLock(path))
        self._steadily = steadily

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """The entries from this one on."""
        yield from self._steadily(lambda: [*super(SteadyJournal, self).read_logs(log_number_from)])

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write entries, or nothing where the folder goes away half-way, and then again."""
        size = self._steadily(lambda: Path(self._file_path).stat().st_size)

        def append() -> None:
            os.truncate(self._file_path, size)
            super(SteadyJournal, self).append_logs(logs)

        self._steadily(append)


class _NoLock(JournalFileSymlinkLock):
    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass
