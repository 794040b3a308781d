"""Values that hardly differ: the report says them in words instead of drawing them."""

from collections.abc import Iterable

from analysis.statistics.responses import Response

CONSTANT = 0.01
"""Range of values, as a share of the largest, up to which they count as constant."""


def is_constant(values: Iterable[float]) -> bool:
    """Whether the range of `values` is at most 1 % of the largest absolute value."""
    known = list(values)
    return max(known) - min(known) <= CONSTANT * max(map(abs, known))


def range_text(response: Response, values: Iterable[float]) -> str:
    """The range of a response with its unit: `108.9 to 109.1 MiB`, or `109.1 MiB`."""
    known = list(values)
    ends = dict.fromkeys(response.text(end) for end in (min(known), max(known)))
    return f"{' to '.join(ends)} {response.unit}".rstrip()
