"""Splits by class: every class is in one of train, val and test."""

import hashlib
import math
from collections.abc import Iterable, Mapping

from memmeta.data.sources import SPLITS
from memmeta.errors import InputError, shortened

Fractions = tuple[float, float, float]
"""Shares of the classes in train, val and test. They sum to 1."""

DEFAULT: Fractions = (0.64, 0.16, 0.2)
"""The shares of miniImageNet and CIFAR-FS, for images without a split."""


def as_fractions(text: str) -> Fractions | None:
    """The fractions in a text such as `0.64,0.16,0.2`; None if it is not three numbers.

    Raises:
        ValueError: see `check_fractions`.
    """
    try:
        first, second, third = map(float, text.split(","))
    except ValueError:
        return None
    return check_fractions((first, second, third))


def check_fractions(fractions: Fractions) -> Fractions:
    """Return the fractions if they are accepted.

    Raises:
        ValueError: they are not positive, or do not sum to 1.
    """
    if not (min(fractions) > 0 and math.isclose(sum(fractions), 1, rel_tol=1e-6)):
        raise ValueError("three positive shares of train, val and test that sum to 1 are accepted")
    return fractions


def by_fractions(names: Iterable[str], fractions: Fractions, seed: int = 0) -> dict[str, str]:
    """Draw a split for each class.

    The draw depends only on the names, the fractions and the seed. Every split has a class if there
    are three or more.

    Args:
        names: the classes, in any order.
        fractions: see `Fractions`.
        seed: another seed gives another split.

    Examples:
        >>> by_fractions("abcd", (0.5, 0.25, 0.25))
        {'d': 'train', 'c': 'train', 'a': 'val', 'b': 'test'}
    """
    # Hashes instead of random numbers: they stay the same in all versions of NumPy.
    drawn = sorted(set(names), key=lambda name: hashlib.sha256(f"{seed}\0{name}".encode()).digest())
    counts = _counts(len(drawn), fractions)
    splits = [split for split, count in zip(SPLITS, counts, strict=True) for _ in range(count)]
    return dict(zip(drawn, splits, strict=True))


def _counts(total: int, fractions: Fractions) -> list[int]:
    """Whole numbers near the fractions of `total`: the largest remainders are rounded up."""
    exact = [share * total for share in fractions]
    counts = [math.floor(value) for value in exact]
    by_remainder = sorted(range(3), key=lambda split: counts[split] - exact[split])
    for split in by_remainder[: total - sum(counts)]:
        counts[split] += 1
    for split in range(3):
        if counts[split] == 0 and max(counts) > 1:
            counts[counts.index(max(counts))] -= 1
            counts[split] = 1
    return counts


def of_entries(entries: Iterable[tuple[str | None, str]]) -> dict[str, str]:
    """The split of each class that a layout states.

    Args:
        entries: split and class of each image. Splits may be None.

    Returns:
        The split of each class; empty if no image has a split.

    Raises:
        InputError: a class is in two splits, or only some images have a split.
    """
    splits: dict[str, str | None] = {}
    for split, label in entries:
        if splits.setdefault(label, split) != split:
            both = " and ".join(str(one or "no split") for one in (splits[label], split))
            raise InputError(
                f"class {shortened(label)} is in {both}, but splits are by class; "
                "--split 0.64,0.16,0.2 splits the classes anew"
            )
    stated = {label: split for label, split in splits.items() if split}
    if stated and len(stated) < len(splits):
        missing = next(label for label, split in splits.items() if not split)
        raise InputError(f"class {shortened(missing)} has no split, others have one")
    return stated


def check_all_used(splits: Mapping[str, str]) -> None:
    """Check that no split is empty.

    Raises:
        InputError: one is.
    """
    counts = dict.fromkeys(SPLITS, 0)
    for split in splits.values():
        counts[split] += 1
    if not all(counts.values()):
        found = ", ".join(f"{count} of {split}" for split, count in counts.items())
        raise InputError(
            f"classes: {found}; every split needs one or more. --split 0.64,0.16,0.2 splits the "
            "classes anew"
        )
