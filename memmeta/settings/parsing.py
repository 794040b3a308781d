"""Validation, with errors in one line."""

from typing import Any, TypeVar

from pydantic import ValidationError

from memmeta.errors import LONGEST_REASON, InputError, shortened, shown
from memmeta.settings.records import Config

C = TypeVar("C", bound=Config)

_MOST_PROBLEMS = 8
"""Problems of one file that a message names."""


def parse(model: type[C], values: object, source: str) -> C:
    """Validate `values` against `model`.

    Raises:
        InputError: with `source`, the key and the accepted values.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{source}: {described(error)}") from None


def described(error: ValidationError) -> str:
    """The first problems of a config in one line, and the number of further ones."""
    problems = error.errors(include_url=False)
    more = len(problems) - _MOST_PROBLEMS
    rest = f"; and {more} more" if more > 0 else ""
    return "; ".join(map(_describe, problems[:_MOST_PROBLEMS])) + rest


def _describe(problem: Any) -> str:
    key = shortened(".".join(map(str, problem["loc"])))
    if problem["type"] == "extra_forbidden":
        return f"unknown key {key}"
    message = shortened(problem["msg"].removeprefix("Value error, "), LONGEST_REASON)
    message = message[0].lower() + message[1:]
    got = "" if isinstance(problem["input"], dict) else f", got {shown(problem['input'])}"
    return f"{key}: {message}{got}" if key else message
