"""Comparison of a stage's settings with those in the record."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memmeta.config import differences
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
        changes = [f"{name} was {a}, is {b}" for name, a, b in differences(old, new)]
        if changes:
            raise InputError(
                f"{folder}: stage {other} of this sweep was begun with other settings "
                f"({'; '.join(changes)}). Keep them, or begin a new version (option fresh)"
            )
