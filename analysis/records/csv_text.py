"""Tables as CSV that no spreadsheet takes for formulas, and back."""

import csv
import io
import re
from collections.abc import Iterable, Mapping

# Characters that begin a formula in some spreadsheet, the full-width ones included.
_FORMULA = "-=+@|%\uff0b\uff0d\uff1d\uff20"

# A program that is set to another separator cuts cells here, even within quotes. Characters of
# `_BEFORE` may stand between a cut and a formula.
_CUTS = r"\t\r\n;"
_BEFORE = rf"(?:['\"]|(?![{_CUTS}])\s)*"

_NEUTRAL = re.compile(rf"(?<![^{_CUTS}])(?={_BEFORE}[{_FORMULA}])")
_NEUTRALISED = re.compile(rf"(?<![^{_CUTS}])'(?={_BEFORE}[{_FORMULA}])")


def csv_text(rows: Iterable[Mapping[str, object]]) -> str:
    """Rows under the names of their columns, in the order in which these come.

    Numbers are written as they are. Everything else is text: it is quoted and made `neutral`. The
    cell is empty where a row lacks the column or has None.
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

    A cell can begin at the start of the text, and after each separator that some program uses.
    Apostrophes that are there already get one more, so that `original` can tell them apart.
    """
    return _NEUTRAL.sub("'", text)


def original(text: str) -> str:
    """The text of which `neutral` made `text`."""
    return _NEUTRALISED.sub("", text)


def _cell(value: object) -> object:
    return value if value is None or isinstance(value, int | float) else neutral(str(value))
