"""Numbers as text: one way to write them in tables, reports and messages."""

from memmeta.metric import Metric
from memmeta.system.units import MIB


def mebibytes(size: int | None) -> str:
    """Bytes as MiB with one decimal, without the unit; a dash for None."""
    return "–" if size is None else f"{size / MIB:.1f}"


def signed_percent(share: float) -> str:
    """A relative change: `+1.2%`. No sign if it rounds to 0."""
    return f"{share:+.1%}" if abs(share) >= 0.0005 else "0.0%"


def points(metric: Metric, difference: float) -> str:
    """A difference of metric values: `1.2 points` for accuracy, `0.0123` for MSE."""
    return f"{100 * difference:.1f} points" if metric.unit else f"{difference:.3g}"


def capitalised(text: str) -> str:
    """`text` with its first letter in upper case; the rest is unchanged."""
    return text[:1].upper() + text[1:]
