"""CSV text as other programs read it: with Python's reader at every possible separator."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memmeta.system.csv_text import csv_text, neutral, original

# Characters that OWASP's page on CSV injection and the package defusedcsv list.
BEGINS_A_FORMULA = tuple("=+-@|%＝＋－＠")
TEXTS = st.text(st.sampled_from("'\"=-\N{FULLWIDTH EQUALS SIGN}\t\r\n;, a1")) | st.text(
    st.characters(codec="utf-8", exclude_characters="\x00")
)
NUMBERS = st.one_of(st.integers(), st.floats(), st.booleans())


@given(TEXTS)
def test_the_original_text_is_restored(text: str) -> None:
    assert original(neutral(text)) == text
    assert original(neutral(neutral(text))) == neutral(text)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@given(rows=st.lists(st.tuples(TEXTS, st.dictionaries(TEXTS, TEXTS | NUMBERS)), min_size=1))
def test_no_cell_starts_a_formula(
    rows: list[tuple[str, dict[str, object]]], separator: str
) -> None:
    content = csv_text({"name": name} | cells for name, cells in rows)
    for line in csv.reader(io.StringIO(content, newline=""), delimiter=separator):
        for cell in line:
            assert is_number(cell) or not cell.lstrip(' "').startswith(BEGINS_A_FORMULA)


def is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


@given(TEXTS, NUMBERS)
def test_numbers_are_numbers_and_text_is_text(text: str, number: float) -> None:
    content = csv_text([{"text": text, "number": number, "nothing": None}])
    header, row = csv.reader(io.StringIO(content, newline=""))
    assert header == ["text", "number", "nothing"]
    assert [original(row[0]), *row[1:]] == [text, str(number), ""]


def test_other_text_is_unchanged() -> None:
    for text in ("", "explore 001", "'quoted'", "loss is nan; step 3", "1 - 2 = -1", '{"low": -1}'):
        assert neutral(text) == text


def test_formulas_after_any_separator_are_escaped() -> None:
    assert neutral('=HYPERLINK("x")') == '\'=HYPERLINK("x")'
    assert neutral("'=1+1") == "''=1+1"
    assert neutral(" \t=1;@SUM(A1)\n-1") == " \t'=1;'@SUM(A1)\n'-1"
