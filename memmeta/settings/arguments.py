"""Checks of the arguments that Python users pass, with errors in one line."""

import inspect
from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar

from pydantic import PlainValidator, create_model

from memmeta.settings.parsing import parse
from memmeta.settings.records import Config
from memmeta.system.files import usable_path

P = ParamSpec("P")
R = TypeVar("R")

AnyPath = Annotated[str | Path, PlainValidator(usable_path)]
"""A path as an argument. `checked` turns it into a `Path`."""


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Validate the arguments of a function against their annotations, as fields of a config are.

    The function gets the validated values. Quoted annotations are not checked.

    Returns:
        The function. It raises an `InputError` that names the arguments that are not accepted.

    Examples:
        >>> from memmeta.errors import InputError
        >>> @checked
        ... def export(top: int | None = None) -> None: ...
        >>> try:
        ...     export(top="x")
        ... except InputError as error:
        ...     print(error)
        export: top: input should be a valid integer, unable to parse string as an integer, got 'x'
    """
    signature = inspect.signature(function)
    kinds = {
        name: parameter.annotation
        for name, parameter in signature.parameters.items()
        if not isinstance(parameter.annotation, str) and parameter.annotation is not parameter.empty
    }

    @cache  # takes time, so not before the first call
    def model() -> type[Config]:
        fields: dict[str, Any] = {name: (kind, None) for name, kind in kinds.items()}
        return create_model(function.__name__, __base__=Config, **fields)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        bound = signature.bind(*args, **kwargs)
        given = {name: value for name, value in bound.arguments.items() if name in kinds}
        values = parse(model(), given, function.__name__)
        bound.arguments |= {name: getattr(values, name) for name in given}
        return function(*bound.args, **bound.kwargs)

    return call
