import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from memmeta.system.units import exact_size, parse_size, short


@pytest.mark.parametrize(
    ("text", "size"),
    [("2000000", 2_000_000), ("200MiB", 200 * 2**20), ("1.5GB", 1_500_000_000), (" 2 GiB ", 2**31)],
)
def test_sizes_are_read_as_people_type_them(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("value", ["", "0", "-1", "MiB", "1.2.3GiB", "2,5GiB", "2XB", "1e9", 0, []])
def test_what_is_no_size_is_refused(value):
    with pytest.raises(ValueError, match="bytes above 0 are accepted, such as"):
        parse_size(value)


@given(st.integers(1, 2**50))
@example(2**40)
def test_exact_sizes_are_read_back(size):
    assert parse_size(exact_size(size)) == size


def test_settings_are_short():
    values = (None, 0.123456, 12, "anil")
    assert [short(value) for value in values] == ["–", "0.123", "12", "anil"]
