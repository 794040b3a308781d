"""Numbers in and out of text: sizes of memory, shares, and settings."""

import re
from typing import Annotated

import click
from pydantic import ByteSize, PlainValidator, TypeAdapter, ValidationError

from memmeta.errors import shown

MIB = 2**20
"""Bytes in a mebibyte."""

ACCEPTED = "bytes above 0 are accepted, such as 2000000, 200MiB or 1.5GB"


def parse_size(value: object) -> int:
    """Parse `200MiB`, `1.5GB` or a plain number into bytes.

    Raises:
        ValueError: the value is none of these, or not above 0.

    Examples:
        >>> parse_size("200MiB")
        209715200
    """
    # Pydantic reads only the beginning of a text: 1.2.3GiB would be one byte.
    if isinstance(value, str) and not re.fullmatch(r"\s*\d+(\.\d+)?\s*[A-Za-z]*\s*", value):
        raise ValueError(ACCEPTED)
    try:
        size = int(TypeAdapter(ByteSize).validate_python(value))
    except ValidationError:
        raise ValueError(ACCEPTED) from None
    if size <= 0:
        raise ValueError(ACCEPTED)
    return size


AnySize = Annotated[int | str, PlainValidator(parse_size)]
"""A size of memory as an argument (see `memmeta.settings.arguments`)."""


class Size(click.ParamType[int]):
    """A command-line option in bytes."""

    name = "size"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """See `parse_size`."""
        try:
            return parse_size(value)
        except ValueError as error:
            self.fail(f"{shown(value)}: {error}", param, ctx)


def mib(size: float, decimals: int = 0) -> str:
    """Bytes in MiB: `82 MiB`."""
    return f"{size / MIB:.{decimals}f} MiB"


def human_size(size: int) -> str:
    """Bytes in the unit that suits the size: `2.0 GiB`."""
    return ByteSize(size).human_readable(separator=" ")


def percent(part: float, whole: float) -> str:
    """`part` of `whole` in per cent: `25 %`."""
    return f"{100 * part / whole:.0f} %"


def short(value: object) -> str:
    """A setting or a number: floats with three significant digits, a dash for None."""
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
