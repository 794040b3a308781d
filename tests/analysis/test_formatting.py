import pytest

from analysis.formatting import mebibytes, points, short, signed_percent, significant
from memmeta.metric import ACCURACY, MSE


def test_settings_are_short() -> None:
    values = (None, 0.123456, 12, "anil")
    assert [short(value) for value in values] == ["", "0.123", "12", "anil"]


def test_memory_is_in_mebibytes() -> None:
    assert [mebibytes(None), mebibytes(3 * 2**19)] == ["", "1.5"]


@pytest.mark.parametrize(
    ("value", "count", "text"),
    [(0.012345, 2, "0.012"), (12345.6, 2, "12346"), (99.6, 2, "100"), (99.4, 2, "99")],
)
def test_significant_digits_have_no_exponent(value: float, count: int, text: str) -> None:
    assert significant(value, count) == text


def test_relative_changes_have_a_sign_unless_they_round_to_zero() -> None:
    assert [signed_percent(x) for x in (0.0123, -0.5, 0.0004)] == ["+1.2%", "-50.0%", "0.0%"]


def test_differences_are_in_the_unit_of_the_metric() -> None:
    assert [points(ACCURACY, 0.0123), points(MSE, 0.01234)] == ["1.2 points", "0.0123"]
