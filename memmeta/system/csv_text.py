"""CSV text in which no spreadsheet program recognises a formula."""

import csv
import io
import re
from collections.abc import Iterable, Mapping

# Characters that start a formula in some spreadsheet program, including the full-width ones.
_FORMULA = "-=+@|%\uff0b\uff0d\uff1d\uff20"

# Programs configured for another separator split cells at these characters, even inside quotes.
# `_BEFORE` matches what may stand between the start of a cell and a formula.
_CUTS = r"\t\r\n;"
_BEFORE = rf"(?:['\"]|(?![{_CUTS}])\s)*"

_NEUTRAL = re.compile(rf"(?<![^{_CUTS}])(?={_BEFORE}[{_FORMULA}])")
_NEUTRALISED = re.compile(rf"(?<![^{_CUTS}])'(?={_BEFORE}[{_FORMULA}])")


def csv_text(rows: Iterable[Mapping[str, object]]) -> str:
    """Format rows as CSV with a header; columns are in order of first appearance.

    Numbers are written unchanged. Everything else is quoted text, with formulas escaped by
    `neutral`. A cell is empty if the row lacks the column or its value is None.
    """
    cells = [{neutral(name): _cell(value) for name, value in row.items()} for row in rows]
    columns = list(dict.fromkeys(name for row in cells for name in row))
    text = io.StringIO(newline="")
    # Python before 3.13 does not quote a lone carriage return unless it quotes all text.
    writer = csv.DictWriter(
        text, columns, restval="", lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC
    )
    writer.writeheader()
    writer.writerows(cells)
    return text.getvalue()


def neutral(text: str) -> str:
    """Put an apostrophe before every position where a spreadsheet could see a formula.

    A cell can start at the beginning of the text and after any separator that some program uses.
    Existing apostrophes there are doubled, so that `original` can restore the text.
    """
    return _NEUTRAL.sub("'", text)


def original(text: str) -> str:
    """Undo `neutral`."""
    return _NEUTRALISED.sub("", text)


def _cell(value: object) -> object:
    return value if value is None or isinstance(value, int | float) else neutral(str(value))
