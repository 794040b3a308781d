"""Command lines import this module first: Ctrl-C during the other imports prints one line.

Importing it replaces `sys.excepthook`. Later, `heed_signals` handles Ctrl-C.
"""

import sys
from types import TracebackType

_before = sys.excepthook


def _one_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("stopped by Ctrl-C", file=sys.stderr)
        sys.exit(130)
    _before(kind, error, trace)


sys.excepthook = _one_line
