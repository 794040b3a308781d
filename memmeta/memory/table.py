"""Peak memory of every algorithm at chosen K: as rows, as a table and as the paper's figure."""

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
from memmeta.training import MetaTrainer

METHODS: tuple[tuple[str, bool], ...] = (
    ("memory_reduced", True),
    ("anil", True),
    ("itd_bio", True),
    ("anil", False),
    ("itd_bio", False),
    ("maml", True),
)
"""Algorithm and `feature_reuse`, the leanest first."""

# Okabe and Ito's colours, which colour-blind readers can tell apart.
_COLOURS = {
    "memory_reduced": "#0072B2",
    "anil": "#009E73",
    "itd_bio": "#E69F00",
    "maml": "#D55E00",
}


class Row(NamedTuple):
    """The peak of one outer step."""

    algorithm: str
    feature_reuse: bool
    inner_steps: int
    cg_steps: int
    task_batch: int
    chunk: int | None
    peak_bytes: int

    @property
    def method(self) -> str:
        """The name for readers: `anil, cached` if its steps reuse features, else `anil, naive`."""
        kind = ""
        if ALGORITHMS[self.algorithm].can_recompute_features:
            kind = ", cached" if self.feature_reuse else ", naive"
        chunk = f", {self.chunk} images at a time" if self.chunk else ""
        return f"{self.algorithm}{kind}{chunk}"


def rows(
    data: DataConfig,
    learner: LearnerConfig,
    input_shape: tuple[int, ...],
    inner_steps: Iterable[int],
    chunks: Sequence[int] = (),
    device: torch.device | None = None,
) -> Iterable[Row]:
    """A row for each method, chunk and K, one after the other as they are known.

    Args:
        data: the shape of an episode.
        learner: all that the rows have in common.
        input_shape: of one image, (channels, height, width).
        inner_steps: the K.
        chunks: besides no chunk; a method that cannot take one leaves it out.
        device: where to measure; None: predicted.
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


def table(found: Sequence[Row]) -> Table:
    """A line a method, a column a K, in MiB."""
    steps = sorted({row.inner_steps for row in found})
    result = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    result.add_column("peak, MiB")
    for k in steps:
        result.add_column(f"K = {k}", justify="right", no_wrap=True)
    for method in dict.fromkeys(row.method for row in found):
        peaks = {row.inner_steps: row.peak_bytes for row in found if row.method == method}
        result.add_row(method, *(f"{peaks[k] / 2**20:.1f}" if k in peaks else "" for k in steps))
    return result


def plot(found: Sequence[Row], path: Path, title: str) -> None:
    """Peak memory against K. Methods whose curves lie on each other share a line and its label."""
    # Takes half a second that no other command needs.
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.2), layout="constrained")
    for rows_together in _same_curves(found):
        first = rows_together[0]
        steps, peaks = zip(
            *((row.inner_steps, row.peak_bytes / 2**20) for row in first), strict=True
        )
        axes.plot(
            steps,
            peaks,
            color=_COLOURS[first[0].algorithm],
            linestyle="-" if first[0].feature_reuse else "--",
            marker="s" if first[0].chunk else "o",
            clip_on=False,
        )
        axes.annotate(
            "\n".join(rows[0].method for rows in rows_together),
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
    axes.set_xticks(sorted({row.inner_steps for row in found}))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.spines[["top", "right"]].set_visible(False)
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: the figure cannot be written ({error})") from None
    finally:
        plt.close(figure)


def _same_curves(found: Sequence[Row]) -> list[list[list[Row]]]:
    """The rows by method, and the methods by curve: within 2 % they are the same to the eye."""
    together: list[list[list[Row]]] = []
    for method in dict.fromkeys(row.method for row in found):
        rows = [row for row in found if row.method == method]
        for others in together:
            pairs = zip(rows, others[0], strict=False)
            if all(abs(a.peak_bytes / b.peak_bytes - 1) < 0.02 for a, b in pairs):
                others.append(rows)
                break
        else:
            together.append([rows])
    return together


def _run(data: DataConfig, learner: LearnerConfig, changes: dict[str, object]) -> RunConfig | None:
    """The run, or None if its algorithm cannot be combined with the rest."""
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
