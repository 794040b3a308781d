"""Time and peak memory of all, measured in turn."""

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
from contenders.everyone import PLAIN, Contender, everyone, from_peer
from contenders.work import Setting
from memmeta.peak_memory import measure_peak
from shared import MIB

FLOOR = "floor"

_WARM_UP = 2
"""Turns before the first that is timed."""


@dataclass(frozen=True)
class Row:
    """One contender, measured."""

    name: str
    algorithm: str
    ours: bool
    seconds: float
    """Median."""
    over_floor: float
    """Median of the ratios of a turn."""
    over_floor_quartiles: tuple[float, float]
    over_fastest: float
    """Likewise, to the fastest peer: MAML's among MAML's, one of all others for the rest."""
    over_fastest_quartiles: tuple[float, float]
    peak_mib: float
    """Of live tensors, parameters and images among them."""
    peak_over_plain: float
    """To the peak of `PLAIN`."""
    difference: float | None
    """Of the gradient from its reference, relative, in float64; None of the floor."""


def time_in_turn(contenders: Sequence[Contender], repeats: int) -> dict[str, list[float]]:
    """Seconds of each, `repeats` times; in every turn another one begins."""
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
    """Bytes of live tensors at most."""
    gc.collect()
    # A GPU's count is of all that is there, those of the other contenders too.
    others = 0
    if contender.device.type == "cuda":
        own = sum(tensor.nbytes for tensor in contender.held())
        others = torch.cuda.memory_allocated(contender.device) - own
    _, most = measure_peak(contender, contender.held, contender.device)
    return most - others


def measure(
    contenders: Sequence[Contender], repeats: int, plain_peak: int, found: Mapping[str, float]
) -> list[Row]:
    """A row each.

    Args:
        contenders: who is timed in turn; the first is the floor, and others than memmeta are there.
        repeats: how often.
        plain_peak: bytes, of `PLAIN`.
        found: how far gradients are from their references.
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
            found.get(contender.name),
        )
        for contender, most in zip(contenders, peaks, strict=True)
    ]


def measure_all(
    setting: Setting,
    maml_steps: int,
    left_out: Mapping[str, str],
    repeats: int,
    found: Mapping[str, float],
) -> dict[str, list[Row]]:
    """The rows of table anil and of table maml: MAML takes much longer, and turns of its own.

    A table with nobody to compare with is left out.
    """
    contenders = [c for c in everyone(setting, maml_steps, left_out) if c.name not in left_out]
    base, plain = (
        from_peer(FLOOR, setting, methods.floor),
        from_peer(PLAIN, setting, methods.plain_anil),
    )
    parts: dict[str, list[Contender]] = {"anil": [], "maml": []}
    for contender in contenders:
        parts["maml" if contender.algorithm == "maml" else "anil"].append(contender)
    return {
        name: measure([base, *part], repeats, peak(plain), found)
        for name, part in parts.items()
        if any(not contender.ours for contender in part)
    }


def _ratios(own: Sequence[float], others: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """Median and quartiles."""
    ratios = [a / b for a, b in zip(own, others, strict=True)]
    low, _, high = quantiles(ratios, n=4)
    return median(ratios), (low, high)


def table(rows: Sequence[Row], title: str) -> Table:
    """A line a contender; the first is the floor."""
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
