"""Peak memory of all algorithms for given K, as rows and as a table."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from rich import box
from rich.table import Table

from memmeta.algorithms import ALGORITHMS
from memmeta.config import DataConfig, LearnerConfig, RunConfig, TrainingConfig
from memmeta.memory.prediction import ShapeDataset, predict_peak_memory
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
