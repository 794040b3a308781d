"""Cells as other programs take them: Python's own reader, at every separator they may be set to."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.records.csv_text import csv_text, neutral, original

# What OWASP's page on CSV injection and Python's defusedcsv name.
BEGINS_A_FORMULA = tuple("=+-@|%＝＋－＠")
TEXTS = st.text(st.sampled_from("'\"=-\N{FULLWIDTH EQUALS SIGN}\t\r\n;, a1")) | st.text(
    st.characters(codec="utf-8", exclude_characters="\x00")
)
NUMBERS = st.one_of(st.integers(), st.floats(), st.booleans())


@given(TEXTS)
def test_the_original_comes_back(text: str) -> None:
    assert original(neutral(text)) == text
    assert original(neutral(neutral(text))) == neutral(text)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@given(rows=st.lists(st.tuples(TEXTS, st.dictionaries(TEXTS, TEXTS | NUMBERS)), min_size=1))
def test_no_cell_begins_a_formula(
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


def test_what_is_no_formula_stands_as_it_is() -> None:
    for text in ("", "explore 001", "'quoted'", "loss is nan; step 3", "1 - 2 = -1", '{"low": -1}'):
        assert neutral(text) == text


def test_a_formula_is_neutral_wherever_a_program_may_cut_a_cell() -> None:
    assert neutral('=HYPERLINK("x")') == '\'=HYPERLINK("x")'
    assert neutral("'=1+1") == "''=1+1"
    assert neutral(" \t=1;@SUM(A1)\n-1") == " \t'=1;'@SUM(A1)\n'-1"
