"""The paper's memory figure, in both of its settings, with baselines of both kinds.

    python benchmarks/memory_vs_k.py

writes docs/memory.md with its figures and the rows as CSV. A step has one task, as in the paper.
The peaks are predicted on fake tensors; tests/memmeta/memory/test_prediction.py checks that
predictions equal measurements on the CPU. On a CUDA device, `--device cuda` measures instead.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click
import torch
from rich.progress import track

from memmeta.command_line import run_command
from memmeta.config import DataConfig, LearnerConfig
from memmeta.memory import table as memory_table
from memmeta.memory.figure import plot_peaks
from memmeta.memory.table import Row
from memmeta.system import provenance
from memmeta.system.csv_text import csv_text
from memmeta.system.devices import chosen_device
from memmeta.system.units import MIB
from shared import out_option

STEPS = (1, 5, 10, 15, 20)
CHUNK = 25
"""Images of a chunk: a support or a query set, as BatchNorm requires."""
SMALL_CHUNK = 10
"""Images of a chunk with GroupNorm."""


class Setting(NamedTuple):
    """A setting of the paper."""

    name: str
    size: int
    filters: int
    paper: dict[str, tuple[float, float, float, float]]
    """Published peaks in MB at K = 5, 10, 15 and 20."""


SETTINGS = (
    Setting(
        "CIFAR-FS and FC100: 32×32, 64 filters",
        32,
        64,
        {
            "memory_reduced": (77.5, 77.7, 78.0, 78.2),
            "itd_bio": (149.1, 263.3, 377.5, 491.7),
            "anil": (149.1, 263.3, 377.5, 491.8),
            "maml": (262.0, 463.6, 665.1, 866.6),
        },
    ),
    Setting(
        "miniImageNet and tieredImageNet: 84×84, 32 filters",
        84,
        32,
        {
            "memory_reduced": (495.8, 496.6, 497.4, 498.1),
            "itd_bio": (1094.1, 1892.7, 2693.1, 3490.8),
            "anil": (1094.1, 1892.7, 2693.2, 3490.9),
            "maml": (1776.9, 3149.3, 4521.7, 5894.1),
        },
    ),
)

TEXT = """\
# Peak memory against K

`{command}`, {how}, commit {commit}.

One outer step on one 5-way 5-shot task with 5 queries per class, Conv4 with BatchNorm, a linear
head, N = {cg}. The peak is the largest number of bytes that live tensors hold (parameters,
gradients, Adam's moments, the batch, activations, temporaries).

`cached` baselines compute the support features once per task. `naive` baselines compute them,
with their graph, at every inner step, as the baselines released with the paper do. "{chunk}
images at a time" is Algorithm 1 that computes its gradient one support or query set at a time:
the same gradient, for a second forward pass. BatchNorm forbids smaller chunks, GroupNorm does
not. All methods except MAML use memmeta's fused form of Conv4's blocks, which keeps half of what
PyTorch's layers keep ([performance.md](performance.md)). MAML adapts the blocks and needs the
layers. All numbers are in [memory.csv](memory.csv).

{sections}
## What remains of the saving

{verdict}
"""

SECTION = """\
## {name}

![Peak memory against K, all methods](memory_{size}.png)

| peak, MiB | {heads} |
|---|{rules}
{lines}

With GroupNorm, at K = 20: Algorithm 1, {small_chunk} images at a time, {small} MiB; cached ANIL
{anil} MiB, {times} times as much.

Published, MB (the paper's own baselines, which recompute features):

| | {paper_heads} |
|---|{paper_rules}
{paper_lines}

"""


def measure(setting: Setting, norm: str, chunk: int, device: torch.device | None) -> list[Row]:
    """Peaks of all methods in one setting."""
    learner = LearnerConfig.model_validate(
        {"filters": setting.filters, "task_batch": 1, "norm": norm}
    )
    shape = (3, setting.size, setting.size)
    rows = memory_table.rows(DataConfig(name="cifar_fs"), learner, shape, STEPS, (chunk,), device)
    return list(track(rows, description=f"{setting.name}, {norm} norm", transient=True))


def section(setting: Setting, rows: Sequence[Row], group: Sequence[Row]) -> str:
    """The results of one setting, with the published table."""
    small, anil = by_method(group)[chunked(SMALL_CHUNK)], by_method(group)["anil, cached"]
    lines = [
        f"| {method} | {' | '.join(f'{peaks[k] / MIB:.1f}' for k in STEPS)} |"
        for method, peaks in by_method(rows).items()
    ]
    paper = [f"| {name} | {' | '.join(map(str, mb))} |" for name, mb in setting.paper.items()]
    return SECTION.format(
        name=setting.name,
        size=setting.size,
        heads=" | ".join(f"K = {k}" for k in STEPS),
        rules="---|" * len(STEPS),
        lines="\n".join(lines),
        paper_heads=" | ".join(f"K = {k}" for k in STEPS[1:]),
        paper_rules="---|" * len(STEPS[1:]),
        paper_lines="\n".join(paper),
        small_chunk=SMALL_CHUNK,
        small=f"{small[20] / MIB:.1f}",
        anil=f"{anil[20] / MIB:.1f}",
        times=f"{anil[20] / small[20]:.2f}",
    )


def chunked(size: int) -> str:
    """The name that `Row.method` has for Algorithm 1 with chunks."""
    return f"memory_reduced, {size} images at a time"


def verdict(setting: Setting, rows: Sequence[Row]) -> str:
    """Ratios of the baselines' peaks to Algorithm 1's at the same K."""
    peaks = by_method(rows)
    ours, by_sets = peaks["memory_reduced"], peaks[chunked(CHUNK)]

    def ratios(baseline: str, method: dict[int, int]) -> str:
        values = [peaks[baseline][k] / method[k] for k in STEPS[1:]]
        return f"{min(values):.2f} to {max(values):.2f}"

    growth = (ours[20] - ours[5]) / ours[5]
    return (
        f"""\
**{setting.name}**, K from 5 to 20; each baseline's peak in multiples of Algorithm 1's:

| baseline | ÷ Algorithm 1 | ÷ Algorithm 1, {CHUNK} images at a time |
|---|---|---|
"""
        + "\n".join(
            f"| {baseline} | {ratios(baseline, ours)} | {ratios(baseline, by_sets)} |"
            for baseline in (
                "anil, cached",
                "itd_bio, cached",
                "anil, naive",
                "itd_bio, naive",
                "maml",
            )
        )
        + f"\n\nFrom K = 5 to K = 20 Algorithm 1's peak changes by {growth:.2%}.\n"
    )


CONCLUSION = """
With a linear head, the published saving over ANIL and ITD-BiO is the saving over baselines that
recompute the support features at every inner step. Baselines that compute them once hold as much
as Algorithm 1 as published (the ratios near 1 above), because an inner step of a linear head
costs them one copy of the head. The saving over MAML, which adapts every layer, remains.

Algorithm 1 can also compute its gradient one set at a time (the last column), because its
cotangents are known before the backbone's backward pass begins. Differentiation through the inner
loop cannot. Baselines can take one *task* at a time, but here a step has only one. For deeper
heads, see `--head mlp` and `--head last_block` of `memmeta memory`.
"""


def by_method(rows: Sequence[Row]) -> dict[str, dict[int, int]]:
    """Peaks by method and K."""
    peaks: dict[str, dict[int, int]] = {}
    for row in rows:
        peaks.setdefault(row.method, {})[row.inner_steps] = row.peak_bytes
    return peaks


def write_csv(path: Path, results: Sequence[tuple[Setting, list[Row], list[Row]]]) -> None:
    """Write all rows as CSV."""
    rows = (
        {"image_size": setting.size, "filters": setting.filters, "norm": norm, **row._asdict()}
        for setting, batch, group in results
        for norm, rows in (("batch", batch), ("group", group))
        for row in rows
    )
    path.write_text(csv_text(rows), encoding="utf-8")


@click.command()
@out_option
@click.option("--device", help="PyTorch device to measure on. Default: predict.")
def main(out: Path, device: str | None) -> None:
    """Predict or measure the peaks, and write the results page."""
    torch_device = chosen_device(device) if device else None
    commit = provenance.commit()  # before the output makes the work tree dirty
    out.mkdir(parents=True, exist_ok=True)
    results = [
        (
            setting,
            measure(setting, "batch", CHUNK, torch_device),
            measure(setting, "group", SMALL_CHUNK, torch_device),
        )
        for setting in SETTINGS
    ]
    for setting, rows, _ in results:
        plot_peaks(rows, out / f"memory_{setting.size}.png", setting.name)
    write_csv(out / "memory.csv", results)
    how = "predicted on fake tensors"
    if torch_device:
        how = f"measured on {provenance.hardware(torch_device)}"
    text = TEXT.format(
        command="python benchmarks/memory_vs_k.py" + (f" --device {device}" if device else ""),
        how=f"{how}, torch {torch.__version__}",
        commit=commit,
        cg=LearnerConfig().cg_steps,
        chunk=CHUNK,
        sections="".join(section(*entry) for entry in results),
        verdict="\n".join(verdict(*entry[:2]) for entry in results) + CONCLUSION,
    )
    (out / "memory.md").write_text(text, encoding="utf-8")
    click.echo(f"wrote {out / 'memory.md'}")


if __name__ == "__main__":
    run_command(main)
