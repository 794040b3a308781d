import pytest
from hypothesis import given
from hypothesis import strategies as st

from memmeta.data.class_splits import as_fractions, by_fractions, of_entries
from memmeta.data.sources import SPLITS
from memmeta.errors import InputError

names = st.sets(st.text(min_size=1), min_size=1, max_size=60)
shares = st.tuples(*[st.integers(1, 100)] * 3).map(
    lambda parts: tuple(part / sum(parts) for part in parts)
)


@given(names=names, fractions=shares, seed=st.integers(0, 5))
def test_every_class_is_in_one_split_of_about_the_right_size(names, fractions, seed):
    splits = by_fractions(names, fractions, seed)
    assert splits.keys() == names
    counts = [[*splits.values()].count(split) for split in SPLITS]
    if len(names) >= 3:
        assert min(counts) >= 1
    for count, share in zip(counts, fractions, strict=True):
        # A split that rounds to nothing takes a class from the largest one.
        assert abs(count - share * len(names)) < (1 if min(counts) > 1 else 3)


@given(names=names, fractions=shares, seed=st.integers(0, 5))
def test_the_order_of_the_classes_does_not_matter(names, fractions, seed):
    assert by_fractions(sorted(names), fractions, seed) == by_fractions(
        sorted(names, reverse=True), fractions, seed
    )


def test_another_seed_draws_another_split():
    names = [f"class {i}" for i in range(40)]
    drawn = [by_fractions(names, (0.5, 0.25, 0.25), seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_fractions_as_text():
    assert as_fractions("0.64,0.16, 0.2") == (0.64, 0.16, 0.2)
    assert as_fractions("split.csv") is as_fractions("1,2") is None
    for text in ("0.5,0.5,0", "0.5,0.5,0.5", "nan,0.5,0.5", "-1,1,1"):
        with pytest.raises(ValueError, match="positive shares"):
            as_fractions(text)


def test_splits_of_a_layout():
    entries = [("train", "a"), ("train", "a"), ("val", "b")]
    assert of_entries(entries) == {"a": "train", "b": "val"}
    assert of_entries([(None, "a"), (None, "b")]) == {}
    with pytest.raises(InputError, match="class a is in train and test, but splits are by class"):
        of_entries([*entries, ("test", "a")])
    with pytest.raises(InputError, match="class c has no split"):
        of_entries([*entries, (None, "c")])
