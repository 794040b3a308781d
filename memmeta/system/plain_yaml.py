"""A safe YAML reader: a small file cannot expand to a large value, and keys are unique."""

from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from memmeta.errors import InputError, cannot_read, shortened

_MOST = 2**22
"""Limit on the characters of a file after expanding aliases: about 2,000 exported runs."""

_NODE = 16
"""Characters added per node, because empty nodes take memory too."""

_LONGEST_NUMBER = 100
"""Limit on the characters of a number or a date. Base-60 numbers take quadratic time."""

_MERGE = "tag:yaml.org,2002:merge"
"""The tag of the key `<<`, which includes the keys of another mapping."""


class _RefusedError(Exception):
    """The file is YAML, but uses something that this reader refuses."""


class _Loader(yaml.SafeLoader):
    """Refuses aliases that expand too far, and repeated keys."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.size = 0
        self.sizes: dict[str, int] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Count the next node, then compose it. An alias counts as the nodes that it repeats."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        anchor = event.anchor
        if isinstance(event, yaml.AliasEvent):
            if anchor in self.anchors and anchor not in self.sizes:
                raise _RefusedError(f"{_at(event)}: *{shortened(anchor)} is a part of itself")
            self._count(event, self.sizes.get(anchor, 0))
            return super().compose_node(parent, index)
        before = self.size
        self._count(event, _NODE + len(getattr(event, "value", "")))
        node = super().compose_node(parent, index)
        if anchor is not None:
            self.sizes[anchor] = self.size - before
        return node

    def compose_scalar_node(self, anchor: Any) -> Any:
        """Compose a scalar, unless it is a number or a date of absurd length."""
        node = super().compose_scalar_node(anchor)
        if node.tag != self.DEFAULT_SCALAR_TAG and len(node.value) > _LONGEST_NUMBER:
            raise _RefusedError(
                f"{_at(node)}: {len(node.value)} characters are too long for a number or date"
            )
        return node

    def compose_mapping_node(self, anchor: Any) -> Any:
        """Compose a mapping, unless two of its keys are equal."""
        node = super().compose_mapping_node(anchor)
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        values = list(map(self._value, keys))
        for value, count in Counter(values).items():
            if count > 1:
                first, second = [k for k, v in zip(keys, values, strict=True) if v == value][:2]
                lines = f"lines {_line(first)} and {_line(second)}"
                raise _RefusedError(f"the key {shortened(first.value)} is repeated, {lines}")
        return node

    def _value(self, key: yaml.ScalarNode) -> object:
        if key.tag == _MERGE:
            return key.tag
        return self.construct_object(key)

    def _count(self, event: Any, size: int) -> None:
        self.size += size
        if self.size > _MOST:
            raise _RefusedError(f"{_at(event)}: too large after expanding aliases")


def _line(event: Any) -> int:
    line: int = event.start_mark.line
    return line + 1


def _at(event: Any) -> str:
    return f"line {_line(event)}"


def read_yaml(path: Path) -> object:
    """Read a YAML file.

    Raises:
        InputError: the file is missing, too large, not text or not YAML, repeats a key, or expands
            too far through aliases.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MOST + 1)
    except OSError as error:
        raise cannot_read(path, error) from None
    if len(content) > _MOST:
        raise InputError(f"{path}: larger than {_MOST} bytes, the limit for YAML files")
    try:
        text = content.decode("utf-8-sig")
    except ValueError:
        raise InputError(f"{path}: not a YAML file: not text in UTF-8") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, source: str) -> object:
    """Parse YAML text.

    Args:
        text: one document.
        source: its origin, for messages.

    Raises:
        InputError: as `read_yaml`, naming `source`.
    """
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except _RefusedError as error:
        raise InputError(f"{source}: refused: {error}") from None
    # Besides YAMLError, PyYAML raises the errors of int and date (`2024-13-45`), and RecursionError
    # for a thousand nested brackets.
    except Exception as error:
        where = getattr(error, "problem_mark", None)
        line = f" (line {where.line + 1})" if where else ""
        raise InputError(f"{source}: not a YAML file{line}") from None
