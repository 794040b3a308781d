"""Peak memory of Algorithm 1 with a vision transformer, in chunks of images.

    python benchmarks/vision_transformer.py

writes docs/vision_transformer.md. The peaks are predicted on fake tensors. One row is also
measured, in two steps on the CPU, which take a few minutes and 2 GB.
"""

from pathlib import Path
from typing import NamedTuple

import click
import torch

from memmeta.command_line import run_command
from memmeta.config import DataConfig, LearnerConfig, RunConfig, TrainingConfig
from memmeta.memory.prediction import ShapeDataset, predict_peak_memory
from memmeta.system import provenance
from memmeta.system.units import MIB
from memmeta.training import MetaTrainer
from shared import out_option

BACKBONE = "timm/vit_small_patch16_224"
STORED = (3, 84, 84)
"""Shape of a stored image. The network gets it at 224x224."""
DATA = DataConfig(name="miniimagenet", ways=5, shots=5, queries=15)


class Row(NamedTuple):
    """A way to compute the gradient."""

    name: str
    chunk: int | None
    train_last: int | None


ROWS = (
    Row("all 100 images of the task", None, None),
    Row("a set at a time (75 query images)", 75, None),
    Row("8 images at a time", 8, None),
    Row("all images, the last block learns", None, 1),
    Row("8 images at a time, the last block learns", 8, 1),
)
MEASURED = ROWS[2]

TEXT = """\
# Memory of a vision transformer

`python benchmarks/vision_transformer.py`, torch {torch}, commit {commit}.

One outer step of Algorithm 1 on one 5-way 5-shot task with 15 queries per class: 25 support and
75 query images at 224×224, ViT-S/16 (`{backbone}`, {parameters:.1f} million parameters), a
linear head, K = N = 20. The peak is the largest number of bytes that live tensors hold
(parameters, gradients, Adam's moments, the batch, activations, temporaries). All rows with the
same blocks that learn have the same gradient, up to rounding.

| in the backbone at a time | predicted peak, MiB | measured on the CPU |
|---|---|---|
{rows}

Parameters, gradients and Adam's moments take {held:.0f} MiB of the first three rows. The rest are
activations, which shrink with the chunk. Chunks smaller than a task take a second forward pass.
"""


def config(row: Row) -> RunConfig:
    """The run of a row."""
    learner = LearnerConfig(
        backbone=BACKBONE, task_batch=1, chunk=row.chunk, train_last=row.train_last
    )
    return RunConfig(data=DATA, learner=learner, training=TrainingConfig(iterations=2))


def measure(row: Row) -> tuple[int, MetaTrainer]:
    """The peak of the second step, and the trainer."""
    trainer = MetaTrainer(config(row), ShapeDataset(STORED), "cpu")
    while trainer.peak_memory is None:
        trainer.step()
    return trainer.peak_memory, trainer


@click.command()
@out_option
def main(out: Path) -> None:
    """Predict the peaks, measure one of them, and write the results page."""
    commit = provenance.commit()  # before the output makes the work tree dirty
    measured, trainer = measure(MEASURED)
    lines = []
    for row in ROWS:
        predicted = predict_peak_memory(config(row), STORED)
        text = ""
        if row is MEASURED:
            same = "equal to the byte" if predicted == measured else "different"
            text = f"{measured / MIB:,.1f} ({same})"
        lines.append(f"| {row.name} | {predicted / MIB:,.1f} | {text} |")
        click.echo(lines[-1])
    page = TEXT.format(
        torch=torch.__version__,
        commit=commit,
        backbone=BACKBONE,
        parameters=sum(p.numel() for p in trainer.model.backbone.parameters()) / 1e6,
        rows="\n".join(lines),
        held=sum(tensor.nbytes for tensor in trainer.held_tensors()) / MIB,
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / "vision_transformer.md").write_text(page, encoding="utf-8")
    click.echo(f"wrote {out / 'vision_transformer.md'}")


if __name__ == "__main__":
    run_command(main)
