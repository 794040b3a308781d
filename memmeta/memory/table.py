"""Peak memory of all algorithms for given K, as rows, as a table and as the paper's figure."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from rich import box
from rich.table import Table

from memmeta.algorithms import ALGORITHMS
from memmeta.config import DataConfig, LearnerConfig, RunConfig, TrainingConfig
from memmeta.errors import InputError
from memmeta.memory.prediction import ShapeDataset, predict_peak_memory
from memmeta.system import palette
from memmeta.system.units import MIB
from memmeta.training import MetaTrainer

METHODS: tuple[tuple[str, bool], ...] = (
    ("memory_reduced", True),
    ("anil", True),
    ("itd_bio", True),
    ("anil", False),
    ("itd_bio", False),
    ("maml", True),
)
"""Algorithm and `feature_reuse`, from the least to the most memory."""

_COLOURS = {
    "memory_reduced": palette.BLUE,
    "anil": palette.GREEN,
    "itd_bio": palette.ORANGE,
    "maml": palette.RED,
}


class Row(NamedTuple):
    """The peak memory of one outer step."""

    algorithm: str
    feature_reuse: bool
    inner_steps: int
    cg_steps: int
    task_batch: int
    chunk: int | None
    peak_bytes: int

    @property
    def method(self) -> str:
        """The displayed name: `anil, cached` if the steps reuse features, else `anil, naive`."""
        variant = ""
        if ALGORITHMS[self.algorithm].can_recompute_features:
            variant = ", cached" if self.feature_reuse else ", naive"
        chunk = f", {self.chunk} images at a time" if self.chunk else ""
        return f"{self.algorithm}{variant}{chunk}"


def rows(
    data: DataConfig,
    learner: LearnerConfig,
    input_shape: tuple[int, ...],
    inner_steps: Iterable[int],
    chunks: Sequence[int] = (),
    device: torch.device | None = None,
) -> Iterable[Row]:
    """Yield a row for each method, chunk size and K, as soon as it is computed.

    Args:
        data: the shape of an episode.
        learner: settings shared by all rows.
        input_shape: shape of one image, (channels, height, width).
        inner_steps: values of K.
        chunks: chunk sizes, in addition to no chunks. Sizes that a method does not support are
            skipped.
        device: where to measure; None: predict instead.
    """
    steps = list(inner_steps)
    for algorithm, reuse in METHODS:
        for chunk in (None, *chunks):
            for k in steps:
                changes = {
                    "algorithm": algorithm,
                    "feature_reuse": reuse,
                    "inner_steps": k,
                    "chunk": chunk,
                }
                run = _run(data, learner, changes)
                if run is not None:
                    peak = _peak(run, input_shape, device)
                    yield Row(
                        algorithm, reuse, k, learner.cg_steps, learner.task_batch, chunk, peak
                    )


def table(rows: Sequence[Row]) -> Table:
    """A table in MiB with one line per method and one column per K."""
    steps = sorted({row.inner_steps for row in rows})
    result = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    result.add_column("peak, MiB")
    for k in steps:
        result.add_column(f"K = {k}", justify="right", no_wrap=True)
    for method in dict.fromkeys(row.method for row in rows):
        peaks = {row.inner_steps: row.peak_bytes for row in rows if row.method == method}
        result.add_row(method, *(f"{peaks[k] / MIB:.1f}" if k in peaks else "" for k in steps))
    return result


def plot(rows: Sequence[Row], path: Path, title: str) -> None:
    """Plot peak memory against K. Methods with the same curve share a line and a label.

    Raises:
        InputError: the file cannot be written.
    """
    # Importing Matplotlib takes half a second, and no other command needs it.
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.2), layout="constrained")
    for same_curve in _same_curves(rows):
        first = same_curve[0]
        steps, peaks = zip(*((row.inner_steps, row.peak_bytes / MIB) for row in first), strict=True)
        axes.plot(
            steps,
            peaks,
            color=_COLOURS[first[0].algorithm],
            linestyle="-" if first[0].feature_reuse else "--",
            marker="s" if first[0].chunk else "o",
            clip_on=False,
        )
        axes.annotate(
            "\n".join(method_rows[0].method for method_rows in same_curve),
            (steps[-1], peaks[-1]),
            xytext=(10, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            annotation_clip=False,
        )
    axes.set(
        title=title, xlabel="K, inner steps", ylabel="peak memory of a step, MiB", yscale="log"
    )
    axes.set_xticks(sorted({row.inner_steps for row in rows}))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.spines[["top", "right"]].set_visible(False)
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: the figure cannot be written ({error})") from None
    finally:
        plt.close(figure)


def _same_curves(rows: Sequence[Row]) -> list[list[list[Row]]]:
    """Group the rows by method, and the methods by curve.

    Curves that differ by less than 2 % look the same in the figure.
    """
    curves: list[list[list[Row]]] = []
    for method in dict.fromkeys(row.method for row in rows):
        method_rows = [row for row in rows if row.method == method]
        for curve in curves:
            pairs = zip(method_rows, curve[0], strict=False)
            if all(abs(a.peak_bytes / b.peak_bytes - 1) < 0.02 for a, b in pairs):
                curve.append(method_rows)
                break
        else:
            curves.append([method_rows])
    return curves


def _run(data: DataConfig, learner: LearnerConfig, changes: dict[str, object]) -> RunConfig | None:
    """The run, or None if the algorithm does not support these settings."""
    try:
        changed = LearnerConfig.model_validate(learner.model_dump() | changes)
        return RunConfig(data=data, learner=changed, training=TrainingConfig(iterations=3))
    except ValueError:
        if changes["chunk"] is None and changes["algorithm"] == METHODS[0][0]:
            raise
        return None


def _peak(run: RunConfig, input_shape: tuple[int, ...], device: torch.device | None) -> int:
    if device is None:
        return predict_peak_memory(run, input_shape)
    trainer = MetaTrainer(run, ShapeDataset(input_shape), device)
    while trainer.peak_memory is None:
        trainer.step()
    return trainer.peak_memory
