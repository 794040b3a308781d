"""Comparison of a stage's settings with those in the record."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from memmeta.errors import InputError
from sweeps.engine.study.outcome import Stage
from sweeps.engine.study.study import recorded_settings

Settings = dict[str, Any]
"""`Study.settings` as JSON values."""

_DEPENDS_ON: Mapping[Stage, Sequence[Stage]] = {
    "search": ["explore"],
    "confirm": ["explore", "search"],
}
"""Stages whose trials depend on trials of earlier stages."""


def check_settings(
    stage: Stage, settings: Settings, recorded: Mapping[Stage, Settings], folder: Path
) -> None:
    """Check that a stage, and the stages it depends on, were started with the same settings.

    Args:
        stage: the stage to run.
        settings: its settings now.
        recorded: the settings with which each stage was started.
        folder: the sweep's folder, for the message.

    Raises:
        InputError: a stage was started with other settings.
    """
    for other in (*_DEPENDS_ON.get(stage, ()), stage):
        if other not in recorded:
            continue
        old = recorded_settings(recorded[other], f"{folder}: stage {other}")
        new = settings
        if other != stage:
            # Each stage has its own fields, so only the common ones can be compared.
            common = old.keys() & new.keys()
            old, new = ({name: each[name] for name in common} for each in (old, new))
        if differences := "; ".join(_differences(old, new)):
            raise InputError(
                f"{folder}: stage {other} of this sweep was begun with other settings "
                f"({differences}). Keep them, or begin a new version (option fresh)"
            )


def _differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            yield from _differences(old.get(name), new.get(name), f"{path}.{name}".lstrip("."))
    elif old != new:
        yield f"{path} was {old}, is {new}"
