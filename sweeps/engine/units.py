"""Formatting of numbers for users."""

from pydantic import ByteSize

MIB = 2**20
"""Bytes."""


def mib(size: float, decimals: int = 0) -> str:
    """Bytes in MiB: `82 MiB`."""
    return f"{size / MIB:.{decimals}f} MiB"


def human_size(size: int) -> str:
    """Bytes in the unit that suits the size: `2.0 GiB`."""
    return ByteSize(size).human_readable(separator=" ")


def percent(part: float, whole: float) -> str:
    """`part` of `whole` in per cent: `25 %`."""
    return f"{100 * part / whole:.0f} %"
