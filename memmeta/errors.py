"""The exception for mistakes that a user can correct, and how messages show refused values."""

import reprlib
from pathlib import Path

import click

_LONGEST = 200
"""Characters of one value or key in a message."""

LONGEST_REASON = 1000
"""Characters of one sentence that says why a value is refused."""


class InputError(click.ClickException):
    """Bad input: a file, a config value, a folder.

    The message names the problem, where it is, and the accepted values. Command lines print it as
    one line and exit with code 2.
    """

    exit_code = 2


class _Repr(reprlib.Repr):
    """A repr that reads only the part of a value that it shows."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxlist = self.maxtuple = self.maxset = self.maxdict = 6
        self.maxstring = self.maxother = self.maxlong = 80

    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to print longer ones.
        if x.bit_length() > 1000:
            return f"an integer of {x.bit_length()} bits"
        return super().repr_int(x, level)


_REPR = _Repr()


def shown(value: object) -> str:
    """The repr of a refused value, on one line, short even if the value is large."""
    return shortened(_REPR.repr(value))


def shortened(text: str, most: int = _LONGEST) -> str:
    """Text from outside, fit for a message: on one line, short, control characters escaped."""
    head = "".join(c if c.isprintable() else _escaped(c) for c in text[:most])
    return head if len(text) <= most else f"{head}..."


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def cannot_read(path: Path, error: OSError) -> InputError:
    """The error to raise for a file that cannot be read."""
    return InputError(f"{path}: cannot be read ({error.strerror or error})")


def cannot_write(path: Path, error: OSError) -> InputError:
    """The error to raise for a file that cannot be written."""
    return InputError(f"{path}: cannot be written ({error.strerror or error})")
