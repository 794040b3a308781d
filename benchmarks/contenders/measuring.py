"""Time and peak memory of the contenders, measured in turn."""

import gc
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median, quantiles

import torch
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from contenders import methods
from contenders.contender import PLAIN, Contender, all_contenders, from_peer
from contenders.work import Setting
from memmeta.peak_memory import measure_peak
from memmeta.system.units import MIB

FLOOR = "floor"

_WARM_UP = 2
"""Number of turns before the first timed one."""


@dataclass(frozen=True)
class Row:
    """Measurements of one contender."""

    name: str
    algorithm: str
    ours: bool
    seconds: float
    """Median time."""
    over_floor: float
    """Median ratio of its time to the floor's in the same turn."""
    over_floor_quartiles: tuple[float, float]
    over_fastest: float
    """Median ratio of its time to the fastest peer's of the same table in the same turn."""
    over_fastest_quartiles: tuple[float, float]
    peak_mib: float
    """Peak memory of live tensors, including parameters and images."""
    peak_over_plain: float
    """Ratio of its peak memory to that of `PLAIN`."""
    difference: float | None
    """Relative difference of the gradient from its reference in float64; None for the floor."""


def time_in_turn(contenders: Sequence[Contender], repeats: int) -> dict[str, list[float]]:
    """Time each contender `repeats` times; every turn starts with another contender."""
    errors = Console(stderr=True)
    seconds: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    turns = track(
        range(-_WARM_UP, repeats), "measuring", console=errors, transient=True,
        disable=not errors.is_terminal,
    )  # fmt: skip
    for turn in turns:
        first = turn % len(contenders)
        for contender in (*contenders[first:], *contenders[:first]):
            _wait(contender)
            begun = time.perf_counter()
            contender()
            _wait(contender)
            if turn >= 0:
                seconds[contender.name].append(time.perf_counter() - begun)
    return seconds


def _wait(contender: Contender) -> None:
    if contender.device.type == "cuda":
        torch.cuda.synchronize(contender.device)


def peak(contender: Contender) -> int:
    """Peak memory of live tensors in bytes."""
    gc.collect()
    # On a GPU the count includes the tensors of the other contenders.
    others = 0
    if contender.device.type == "cuda":
        held = sum(tensor.nbytes for tensor in contender.held())
        others = torch.cuda.memory_allocated(contender.device) - held
    _, most = measure_peak(contender, contender.held, contender.device)
    return most - others


def measure(
    contenders: Sequence[Contender], repeats: int, plain_peak: int, differences: Mapping[str, float]
) -> list[Row]:
    """Measure the contenders of one table.

    Args:
        contenders: the contenders to time in turn. The first is the floor; at least one is a peer.
        repeats: number of timed turns.
        plain_peak: peak memory of `PLAIN` in bytes.
        differences: differences of gradients from their references, by name.

    Returns:
        One row per contender.
    """
    peaks = [peak(contender) for contender in contenders]
    seconds = time_in_turn(contenders, repeats)
    peers = (seconds[contender.name] for contender in contenders[1:] if not contender.ours)
    fastest = min(peers, key=median)
    return [
        Row(
            contender.name,
            contender.algorithm,
            contender.ours,
            median(seconds[contender.name]),
            *_ratios(seconds[contender.name], seconds[contenders[0].name]),
            *_ratios(seconds[contender.name], fastest),
            most / MIB,
            most / plain_peak,
            differences.get(contender.name),
        )
        for contender, most in zip(contenders, peaks, strict=True)
    ]


def measure_all(
    setting: Setting,
    maml_steps: int,
    left_out: Mapping[str, str],
    repeats: int,
    differences: Mapping[str, float],
) -> dict[str, list[Row]]:
    """The rows of the tables `anil` and `maml`; MAML takes much longer and is timed separately.

    A table without peers is left out.
    """
    contenders = [
        c for c in all_contenders(setting, maml_steps, left_out) if c.name not in left_out
    ]
    base, plain = (
        from_peer(FLOOR, setting, methods.floor),
        from_peer(PLAIN, setting, methods.plain_anil),
    )
    groups: dict[str, list[Contender]] = {"anil": [], "maml": []}
    for contender in contenders:
        groups["maml" if contender.algorithm == "maml" else "anil"].append(contender)
    return {
        name: measure([base, *group], repeats, peak(plain), differences)
        for name, group in groups.items()
        if any(not contender.ours for contender in group)
    }


def _ratios(own: Sequence[float], others: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """Median and quartiles of the ratios."""
    ratios = [a / b for a, b in zip(own, others, strict=True)]
    low, _, high = quantiles(ratios, n=4)
    return median(ratios), (low, high)


def table(rows: Sequence[Row], title: str) -> Table:
    """A table with one row per contender; the first row is the floor."""
    fastest = min((row for row in rows[1:] if not row.ours), key=lambda row: row.seconds)
    caption = f"÷ peer: {fastest.name}; ÷ plain: memory, {PLAIN}"
    result = Table(
        title=title, title_justify="left", caption=caption, caption_justify="left",
        box=box.SIMPLE_HEAD, padding=0,
    )  # fmt: skip
    result.add_column("", no_wrap=True)
    for heading in ("s", "÷ floor", "quartiles", "÷ peer", "quartiles", "MiB", "÷ plain"):
        result.add_column(heading, justify="right", no_wrap=True)
    for row, following in pairwise([*rows, None]):
        result.add_row(
            row.name,
            f"{row.seconds:.3f}",
            f"{row.over_floor:.2f}",
            "{:.2f}-{:.2f}".format(*row.over_floor_quartiles),
            f"{row.over_fastest:.2f}",
            "{:.2f}-{:.2f}".format(*row.over_fastest_quartiles),
            f"{row.peak_mib:.0f}",
            f"{row.peak_over_plain:.2f}",
            end_section=bool(following and following.ours and not row.ours),
        )
    return result
