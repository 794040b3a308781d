import time
from collections.abc import Callable

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from memmeta.config import RunConfig, parse
from memmeta.errors import InputError, shown
from memmeta.system.plain_yaml import parse_yaml, read_yaml

plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
values = st.recursive(
    plain, lambda part: st.lists(part) | st.dictionaries(st.text(), part), max_leaves=8
)


@given(values)
def test_what_is_written_is_read(value):
    # Twice in a list, so that the writer uses an alias where it can.
    text = yaml.safe_dump([value, value])
    assert parse_yaml(text, "x") == [value, value]


def refusal(read: Callable[[], object]) -> str | None:
    """The message of an InputError; None if there is none."""
    try:
        read()
    except InputError as error:
        return str(error)
    return None


def bomb(width: int, depth: int, leaf: str = "x") -> str:
    """A list that holds `width` ** `depth` leaves when its aliases are written out."""
    lines = [f"- &a0 [{','.join([leaf] * width)}]"]
    lines += [f"- &a{i} [{','.join([f'*a{i - 1}'] * width)}]" for i in range(1, depth)]
    return "\n".join(lines)


@given(st.integers(2, 30), st.integers(1, 30))
def test_aliases_count_all_that_they_repeat(width, depth):
    leaves = sum(width**i for i in range(1, depth + 1))
    begun = time.process_time()
    message = refusal(lambda: parse_yaml(bomb(width, depth), "x.yaml"))
    assert time.process_time() - begun < 1
    if message is None:
        assert leaves < 500_000
    else:
        assert leaves > 100_000
        assert message.startswith("x.yaml: refused: line ")


@pytest.mark.parametrize(
    "text",
    [
        bomb(10, 9),
        bomb(60, 3, "y" * 5_000),
        "a: &a {x: [1, 2]}\n" + "\n".join(
            f"b{i}: &{'abcdefghijklmnopqrstuvwxyz'[i]} {{p: *{p}, q: *{p}}}"
            for i, p in enumerate("abcdefghijklmnopqrstuvwxy", start=1)
        ),
        "a: &a\n  b: *a\n",
        "&a [*a, *a]",
    ],
)  # fmt: skip
def test_what_small_files_can_ask_for_is_refused(text):
    begun = time.process_time()
    with pytest.raises(InputError, match=r"^x: refused: line \d+: ") as caught:
        parse_yaml(text, "x")
    assert time.process_time() - begun < 1
    assert "\n" not in str(caught.value)


def test_aliases_as_people_use_them():
    text = """
    base: &base {ways: 5, shots: 1}
    few: &few {<<: *base, shots: 2}
    more: {<<: [*few, {queries: 3}], ways: 20}
    """
    expected = yaml.safe_load(text)
    assert expected["more"] == {"ways": 20, "shots": 2, "queries": 3}
    assert parse_yaml(text, "x") == expected


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("seed: 1\ndata: {}\nseed: 2", "seed"),
        ("data: {name: glyphs, 'name': omniglot}", "name"),
        ("a: [{b: 1, c: 2, b: 1}]", "b"),
        ("1: a\n0x1: b", "1"),
        ("? |-\n  a\n: 1\na: 2", "a"),
        ("a: &a {}\nb: &b {}\nc: {<<: *a, <<: *b}", "<<"),
    ],
)
def test_a_key_that_is_there_twice_is_named(text, key):
    with pytest.raises(InputError, match=rf"^x: .*key {key} is repeated, lines \d+ and \d+$"):
        parse_yaml(text, "x")


@given(st.lists(st.text(st.characters(categories=["Ll"]), min_size=1), max_size=6))
def test_keys_are_told_apart(keys):
    text = "\n".join(f"'{key}': {place}" for place, key in enumerate(keys))
    if len(set(keys)) == len(keys):
        assert (parse_yaml(text, "x") or {}) == {key: i for i, key in enumerate(keys)}
    else:
        with pytest.raises(InputError, match="is repeated"):
            parse_yaml(text, "x")


@pytest.mark.parametrize(
    "text", ["a: " + "9" * 5000, "a: " + "1:" * 5000 + "1", "a: 0x" + "f" * 9999]
)
def test_numbers_that_take_long_are_refused(text):
    with pytest.raises(InputError, match="characters are too long for a number"):
        parse_yaml(text, "x")


def test_a_large_file_is_not_read_whole(tmp_path):
    path = tmp_path / "x.yaml"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(InputError, match=r"x.yaml: larger than"):
        read_yaml(path)


def test_a_byte_order_mark_is_no_part_of_a_key(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("seed: 3", encoding="utf-8-sig")
    assert read_yaml(path) == {"seed": 3}


# Messages ----------------------------------------------------------------------------------------

huge = st.one_of(
    values,
    st.text(min_size=1000),
    st.integers(min_value=2**2000),
    st.lists(st.text(min_size=50), min_size=200),
    st.dictionaries(st.text(min_size=100), st.none(), min_size=100),
)


@given(huge)
def test_messages_are_short_whatever_is_refused(value):
    assert len(shown(value)) <= 210
    for content in ({"learner": {"filters": value}}, {"learner": value}, {str(value)[:9000]: 1}):
        message = refusal(lambda content=content: parse(RunConfig, content, "x.yaml"))
        assert message is None or (len(message) < 5000 and message.isprintable())


def test_small_values_are_shown_as_they_are():
    for value in (-1, 2.5, "layer", None, True, [1, 2], {"a": "b"}, ("x",)):
        assert shown(value) == repr(value)


def test_not_every_problem_of_a_file_is_named():
    content = {f"key{i}": 1 for i in range(1000)}
    with pytest.raises(InputError, match=r"unknown key key0; .*; and 992 more$"):
        parse(RunConfig, content, "x.yaml")
