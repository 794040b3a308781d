from analysis.formatting import mebibytes, points, signed_percent
from memmeta.metric import ACCURACY, MSE


def test_memory_is_in_mebibytes() -> None:
    assert [mebibytes(None), mebibytes(3 * 2**19)] == ["–", "1.5"]


def test_relative_changes_have_a_sign_unless_they_round_to_zero() -> None:
    assert [signed_percent(x) for x in (0.0123, -0.5, 0.0004)] == ["+1.2%", "-50.0%", "0.0%"]


def test_differences_are_in_the_unit_of_the_metric() -> None:
    assert [points(ACCURACY, 0.0123), points(MSE, 0.01234)] == ["1.2 points", "0.0123"]
