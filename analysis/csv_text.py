"""Tables as CSV that no spreadsheet takes for formulas, and back."""

import csv
import io
import re
from collections.abc import Iterable, Mapping

# What begins a formula, here and in full width, or is taken for it.
_FORMULA = "-=+@|%\uff0b\uff0d\uff1d\uff20"

# Where programs that are set to another separator cut a cell, whatever the quotes say; and what may
# stand between there and a formula.
_CUTS = r"\t\r\n;"
_BEFORE = rf"(?:['\"]|(?![{_CUTS}])\s)*"

_NEUTRAL = re.compile(rf"(?<![^{_CUTS}])(?={_BEFORE}[{_FORMULA}])")
_NEUTRALISED = re.compile(rf"(?<![^{_CUTS}])'(?={_BEFORE}[{_FORMULA}])")


def csv_text(rows: Iterable[Mapping[str, object]]) -> str:
    """Rows under the names of their columns, in the order in which these come.

    Numbers stand as they are; everything else is text, in quotes and `neutral`. A column that a
    row lacks, or has None in, is empty.
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
    """`text` with an apostrophe before each place where a spreadsheet could begin a formula.

    That is at its start, and where programs cut cells that are set to other separators. It also
    goes before apostrophes that are there already, so that `original` finds them again.
    """
    return _NEUTRAL.sub("'", text)


def original(text: str) -> str:
    """The text of which `neutral` made `text`."""
    return _NEUTRALISED.sub("", text)


def _cell(value: object) -> object:
    return value if value is None or isinstance(value, int | float) else neutral(str(value))
