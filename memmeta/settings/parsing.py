"""Validation, with errors in one line."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from memmeta.errors import LONGEST_REASON, InputError, did_you_mean, shortened, shown
from memmeta.settings.records import Config

C = TypeVar("C", bound=Config)

_MOST_PROBLEMS = 8
"""Problems of one file that a message names."""

_MOST_KEYS = 8
"""Accepted keys that the message of a single problem lists."""


def parse(model: type[C], values: object, source: str, folder: Path | None = None) -> C:
    """Validate `values` against `model`.

    Args:
        model: the config.
        values: for example what a file contains.
        source: names their origin in messages.
        folder: the folder to which paths in `values` are relative; None: the current folder.

    Raises:
        InputError: with `source`, the key and the accepted values.
    """
    try:
        return model.model_validate(values, context={"folder": folder})
    except ValidationError as error:
        raise InputError(f"{source}: {described(error)}") from None


def described(error: ValidationError) -> str:
    """The first problems of a config in one line, and the number of further ones."""
    problems = error.errors(include_url=False)
    model = _model(error.title)
    most_keys = _MOST_KEYS if len(problems) == 1 else 0
    more = len(problems) - _MOST_PROBLEMS
    rest = f"; and {more} more" if more > 0 else ""
    described = (_describe(problem, model, most_keys) for problem in problems[:_MOST_PROBLEMS])
    return "; ".join(described) + rest


def _describe(problem: Any, model: type[Config] | None, most_keys: int) -> str:
    key = shortened(".".join(map(str, problem["loc"])))
    if problem["type"] == "extra_forbidden":
        return f"unknown key {key}{_hint(problem['loc'], model, most_keys)}"
    message = shortened(problem["msg"].removeprefix("Value error, "), LONGEST_REASON)
    message = message[0].lower() + message[1:]
    got = "" if isinstance(problem["input"], dict) else f", got {shown(problem['input'])}"
    return f"{key}: {message}{got}" if key else message


def _hint(place: Sequence[int | str], model: type[Config] | None, most_keys: int) -> str:
    """What is accepted instead of an unknown key: the nearest key, or else all if few enough."""
    *sections, key = place
    for section in sections:
        model = _section(model, section)
    if model is None:
        return ""
    keys = [*model.model_fields]
    similar = did_you_mean(str(key), keys)
    if similar:
        return similar
    return f"; accepted are {', '.join(keys)}" if len(keys) <= most_keys else ""


def _section(model: type[Config] | None, name: int | str) -> type[Config] | None:
    """The config in a field of a config; None if there is none."""
    field = model.model_fields.get(str(name)) if model else None
    part = field.annotation if field else None
    return part if isinstance(part, type) and issubclass(part, Config) else None


def _model(name: str) -> type[Config] | None:
    """The config of that class name. Pydantic's errors do not contain the class itself."""
    pending: list[type[Config]] = [Config]
    while pending:
        model = pending.pop()
        if model.__name__ == name:
            return model
        pending += model.__subclasses__()
    return None
