"""The settings of trials in a table: columns for those that differ, a sentence for the others."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from analysis.records.trials import Trial
from memmeta.system.units import short


class Settings(NamedTuple):
    """The settings of trials, as text."""

    names: list[str]
    """The settings that are not the same in all trials."""
    rows: list[list[str]]
    """Their values, one row for each trial."""
    same: str
    """The other settings in a sentence; empty if there are none."""


def settings(trials: Sequence[Trial], names: Iterable[str]) -> Settings:
    """Divide settings into those in which trials differ, and the others.

    Args:
        trials: one or more trials.
        names: the settings.
    """
    flat = [trial.config.flat() for trial in trials]
    texts = {name: [short(values.get(name)) for values in flat] for name in names}
    varying = [name for name, values in texts.items() if len(set(values)) > 1]
    same = ", ".join(f"{name} {texts[name][0]}" for name in texts if name not in varying)
    rows = [[texts[name][row] for name in varying] for row in range(len(trials))]
    return Settings(varying, rows, f"The same in all rows: {same}." if same else "")
