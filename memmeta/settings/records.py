"""Configs in records: old field names, missing fields, and versions."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, model_validator

from memmeta.errors import InputError

RECORD_VERSION = 2
"""Version of the records that this program writes. Raise it whenever older programs would misread
them. Records of all versions up to this one are read. Those of version 1 have no number."""

M = TypeVar("M")


@dataclass(frozen=True)
class Before:
    """Marks a field that records of version 1 do not have.

    Use it as `Annotated[type, Before(value)] = default`. Records (ledgers, checkpoints, exports,
    tables of trials) hold every field of the version that wrote them. So a field is missing exactly
    when the record is older than the field.
    """

    value: Any
    """The behaviour before the field existed. It may differ from the field's default."""


@dataclass(frozen=True)
class Renamed:
    """Marks a field that has another name in records of version 1. The old name is still read.

    Examples:
        `feature_reuse: Annotated[bool, Renamed("kind", {"cached": True, "naive": False})] = True`
    """

    old: str
    """The old name."""
    values: Mapping[str, Any]
    """The new value for each old one."""

    def new_value(self, value: Any) -> Any:
        """`value`, translated if it is an old one."""
        return self.values.get(value, value) if isinstance(value, str) else value

    def check_once(self, name: str, values: Mapping[str, Any]) -> None:
        """Refuse values under the old name and under the present name `name`.

        Raises:
            ValueError: both are there.
        """
        if name in values:
            raise ValueError(f"{self.old} is the old name of {name}: give one of them")

    def old_value(self, value: Any) -> Any:
        """The old value that `value` replaced."""
        return next(old for old, new in self.values.items() if new == value)


class Config(BaseModel):
    """Base of all configs: immutable, and unknown keys are errors. Old names are accepted."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    def explicit(self) -> dict[str, Any]:
        """All fields. None is replaced if it stands for a value that other fields decide."""
        return self.model_dump()

    def recorded(self) -> dict[str, Any]:
        """As `explicit`, under the names and values of records of version 1, without later fields.

        A later field is left out if its value is the behaviour before the field existed.
        """
        values = self.explicit()
        for name, mark in _marks(type(self), Renamed):
            values[mark.old] = mark.old_value(values.pop(name))
        old = values_before(type(self)).items()
        return {name: value for name, value in values.items() if (name, value) not in old}

    @model_validator(mode="before")
    @classmethod
    def _old_names(cls, values: Any) -> Any:
        return renewed(cls, values) if isinstance(values, Mapping) else values


def renewed(model: type[Config], values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` under the present field names.

    Raises:
        ValueError: a field has a value under both names.
    """
    new = dict(values)
    for name, mark in _marks(model, Renamed):
        if mark.old in new:
            mark.check_once(name, new)
            new[name] = mark.new_value(new.pop(mark.old))
    return new


def renamed(model: type[Config]) -> dict[str, tuple[str, Renamed]]:
    """The old names of the fields of `model`, each with the present name and its mark."""
    return {mark.old: (name, mark) for name, mark in _marks(model, Renamed)}


def names(model: type[Config]) -> list[str]:
    """The names under which records have the fields of `model`, including old names."""
    return [*model.model_fields, *(mark.old for _, mark in _marks(model, Renamed))]


def values_before(model: type[Config]) -> dict[str, Any]:
    """The fields of `model` that older records lack, each with the behaviour before it existed."""
    return {name: mark.value for name, mark in _marks(model, Before)}


def completed(model: type[Config], record: Any) -> Any:
    """A record's values for `model`, with values for the fields that the record is too old to have.

    Configs within configs are completed too. A value that is not a dict is returned as it is.

    Examples:
        >>> from memmeta.config import RunConfig
        >>> completed(RunConfig, {"seed": 3, "learner": {"ridge": 0.1}})["learner"]["ridge"]
        0.1
    """
    if not isinstance(record, dict):
        return record
    values = values_before(model) | renewed(model, record)
    for name, field in model.model_fields.items():
        part = field.annotation
        if name in record and isinstance(part, type) and issubclass(part, Config):
            values[name] = completed(part, record[name])
    return values


def differences(one: Any, other: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The fields in which two configs differ, as dicts: the name and both values of each.

    Examples:
        >>> [*differences({"learner": {"ridge": 0.1, "norm": "batch"}}, {"learner": {"ridge": 1}})]
        [('learner.norm', 'batch', None), ('learner.ridge', 0.1, 1)]
    """
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(one.keys() | other.keys()):
            yield from differences(one.get(key), other.get(key), f"{name}.{key}".lstrip("."))
    elif one != other:
        yield name, one, other


def check_version(record: Mapping[str, Any], source: str) -> None:
    """Refuse a record that this program might misread.

    Raises:
        InputError: a later version of memmeta wrote it, or its version is not a number.
    """
    version = record.get("version", 1)
    if type(version) is not int:
        raise InputError(f"{source}: version: a whole number is accepted")
    if version > RECORD_VERSION:
        raise InputError(
            f"{source}: written by a later version of memmeta (records of version {version}; this "
            f"one reads up to {RECORD_VERSION}). Use that version"
        )


def _marks(model: type[Config], kind: type[M]) -> Iterator[tuple[str, M]]:
    """The fields of `model` with a mark of this kind, and the mark."""
    for name, field in model.model_fields.items():
        for mark in field.metadata:
            if isinstance(mark, kind):
                yield name, mark
