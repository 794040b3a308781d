"""The exceptions that carry a message for the user, and how messages show refused values."""

import difflib
import reprlib
from collections.abc import Iterable
from pathlib import Path

_LONGEST = 200
"""Characters of one value or key in a message."""

LONGEST_REASON = 1000
"""Characters of one sentence that says why a value is refused."""


class MessageError(Exception):
    """An error whose message is all that the user needs. Command lines print it without traceback.

    Attributes:
        message: one line; lists of problems have one line each.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InputError(MessageError):
    """Bad input: a file, a config value, a folder. Command lines exit with code 2.

    The message names the problem, where it is, and the accepted values.

    Examples:
        >>> from memmeta.config import LearnerConfig, parse
        >>> from memmeta.errors import InputError
        >>> try:
        ...     parse(LearnerConfig, {"filters": 0}, "mine.yaml")
        ... except InputError as error:
        ...     print(error)
        mine.yaml: filters: input should be greater than or equal to 1, got 0
    """


class FailedError(MessageError):
    """Good input, but something failed: a disk, a cluster, a trial. Command lines exit with 1."""


class DivergedError(RuntimeError):
    """A number in training or evaluation is not finite. This is a result, not a bug."""

    def __init__(self, iteration: int) -> None:
        super().__init__(f"diverged at outer step {iteration}")
        self.iteration = iteration


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


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """A suggestion to insert into a message about an unknown name; empty if none is similar.

    Examples:
        >>> did_you_mean("glyps", ["glyphs", "omniglot"])
        ' (did you mean glyphs?)'
    """
    # Long names come from files, and comparing them takes quadratic time.
    near = difflib.get_close_matches(name[:_LONGEST], [*names], n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def cannot_read(path: Path, error: OSError) -> InputError:
    """The error to raise for a file that cannot be read."""
    return InputError(f"{path}: cannot be read ({error.strerror or error})")


def cannot_write(path: Path, error: OSError) -> InputError:
    """The error to raise for a file that cannot be written."""
    return InputError(f"{path}: cannot be written ({error.strerror or error})")
