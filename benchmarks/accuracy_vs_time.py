"""Validation accuracy against training time on CIFAR-FS, for Algorithm 1 and ANIL at several K.

    python benchmarks/accuracy_vs_time.py --data-root data --minutes 10

writes docs/accuracy_vs_time.md, its figure, and all points of it as a CSV file.
"""

import csv
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import click
import matplotlib.pyplot as plt
import torch
from rich.progress import Progress, TaskID

from memmeta import data, provenance
from memmeta.command_line import data_root_option
from memmeta.config import DataConfig, LearnerConfig, RunConfig, TrainingConfig
from memmeta.data import Dataset
from memmeta.runtime import configure_process
from memmeta.training import Evaluation, MetaTrainer
from shared import COLOURS, MIB, out_option

LEARNERS = {
    "memory_reduced": LearnerConfig(algorithm="memory_reduced"),
    "ANIL, cached": LearnerConfig(algorithm="anil", kind="cached"),
    "ANIL, naive": LearnerConfig(algorithm="anil", kind="naive"),
}
MARKERS = ("o", "s", "^")
VALIDATIONS = 10
WARM_UP_STEPS = 3  # the first allocates, and the other two are measured for memory

TEXT = """\
# Accuracy against training time

`{command}` on {hardware}, commit {commit}.

{data.ways}-way {data.shots}-shot CIFAR-FS, Conv4-{learner.filters}, {learner.task_batch} tasks a
step with {data.queries} query images a class. For all, memmeta's defaults: inner_lr
{learner.inner_lr:g}, outer_lr {learner.outer_lr:g}, ridge {learner.ridge:g}, features
`{learner.feature_scaling}`. For memory_reduced: N = {learner.cg_steps}, no chunks. One seed,
{seed}: all begin with the same backbone and see the same tasks in the same order. ANIL computes
the support features once a task (cached), or anew at every inner step (naive) as the paper's
released baselines do.

The curves are run one after another in one process (CPU threads: {threads}). Each trains for
{seconds:.1f} s. Only training is on the clock: validation is not, nor are the first {warm_up}
steps, of which two are watched for their memory. Each curve is validated at the start of the clock
and {validations} times at even intervals, on the same {tasks} tasks; ± and the bands are the 95 %
intervals over these tasks, which say nothing of other seeds.

![Validation accuracy against seconds of training, a panel for each K](accuracy_vs_time.png)

| K | method | final accuracy, % | steps | s/step | peak, MiB |
|---|---|---|---|---|---|
{rows}

{reading}

All points of the figure: [accuracy_vs_time.csv](accuracy_vs_time.csv).
"""


class Point(NamedTuple):
    """A validation."""

    seconds: float
    """Training time up to it."""
    steps: int
    """Outer steps in that time."""
    val: Evaluation


class Curve(NamedTuple):
    """One training."""

    method: str
    inner_steps: int
    points: list[Point]
    peak: int
    """Bytes of a step."""

    @property
    def seconds_per_step(self) -> float:
        """Mean over the steps on the clock."""
        return self.points[-1].seconds / self.points[-1].steps


def train(
    run: RunConfig, dataset: Dataset, seconds: float, on_time: Callable[[float], None]
) -> tuple[list[Point], int]:
    """Train for `seconds`; return the validations, and the peak memory of a step in bytes.

    Args:
        run: what to train; its budget plays no part.
        dataset: the data that it names.
        seconds: training time. The step in which it is over is the last one.
        on_time: called after every step with the training time so far.
    """
    trainer = MetaTrainer(run, dataset, "cpu")
    for _ in range(WARM_UP_STEPS):
        trainer.step()
    assert trainer.peak_memory is not None
    clock, points = 0.0, []
    for validation in range(VALIDATIONS + 1):
        while clock < seconds * validation / VALIDATIONS:
            begun = time.perf_counter()
            trainer.step()
            clock += time.perf_counter() - begun
            on_time(clock)
        steps = trainer.iteration - WARM_UP_STEPS
        points.append(Point(clock, steps, trainer.evaluate("val", run.training.val_tasks)))
    return points, trainer.peak_memory


def draw(curves: list[Curve], path: Path) -> None:
    """The figure: a panel for each K."""
    values = sorted({curve.inner_steps for curve in curves})
    figure, panels = plt.subplots(
        1, len(values), figsize=(4.5 * len(values), 4), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    styles = dict(zip(LEARNERS, zip(COLOURS, MARKERS, strict=True), strict=True))
    for axes, k in zip(panels[0], values, strict=True):
        for curve in (curve for curve in curves if curve.inner_steps == k):
            colour, marker = styles[curve.method]
            seconds = [point.seconds for point in curve.points]
            accuracy = [100 * point.val.value for point in curve.points]
            low = [100 * (point.val.value - point.val.interval) for point in curve.points]
            high = [100 * (point.val.value + point.val.interval) for point in curve.points]
            axes.fill_between(seconds, low, high, color=colour, alpha=0.2, linewidth=0)
            axes.plot(
                seconds, accuracy, color=colour, marker=marker, markersize=4, label=curve.method
            )
        axes.set(title=f"K = {k}", xlabel="training time, s", xlim=(0, None))
        axes.grid(alpha=0.3)
    panels[0][0].set_ylabel("validation accuracy, %")
    lines, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(lines, labels, frameon=False, loc="outside upper center", ncols=len(lines))
    figure.savefig(path, dpi=150)


def write_points(curves: list[Curve], path: Path) -> None:
    """All points of the figure."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            ("algorithm", "kind", "inner_steps", "seconds", "steps", "val_accuracy", "val_interval")
        )
        for curve in curves:
            learner = LEARNERS[curve.method]
            for point in curve.points:
                writer.writerow(
                    (learner.algorithm, learner.kind, curve.inner_steps, f"{point.seconds:.3f}",
                     point.steps, point.val.value, point.val.interval)
                )  # fmt: skip


def row(curve: Curve) -> str:
    """A line of the table."""
    last = curve.points[-1]
    return (
        f"| {curve.inner_steps} | {curve.method} "
        f"| {100 * last.val.value:.1f} ± {100 * last.val.interval:.1f} "
        f"| {last.steps} | {curve.seconds_per_step:.3f} | {curve.peak / MIB:.0f} |"
    )


def reading(curves: list[Curve]) -> str:
    """The result at one K in words."""
    own, *others = curves
    sentences = []
    for other in others:
        difference = 100 * (own.points[-1].val.value - other.points[-1].val.value)
        sentences.append(
            f"memory_reduced ends {abs(difference):.1f} percentage points "
            f"{'above' if difference >= 0 else 'below'} {other.method}, with "
            f"{own.points[-1].steps / other.points[-1].steps:.2f} times as many steps and "
            f"{own.peak / other.peak:.2f} times the peak memory."
        )
    return f"- K = {own.inner_steps}, one seed: " + " ".join(sentences)


@click.command()
@data_root_option
@click.option(
    "--minutes", default=10.0, show_default=True,
    help="Of training in all, divided evenly among the curves; validation comes on top.",
)  # fmt: skip
@click.option("--inner-steps", "-k", multiple=True, default=(5, 20), show_default=True)
@click.option("--val-tasks", default=200, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads; default: all.")
@click.option("--seed", default=0, show_default=True)
@out_option
def main(
    data_root: Path,
    minutes: float,
    inner_steps: tuple[int, ...],
    val_tasks: int,
    threads: int | None,
    seed: int,
    out: Path,
) -> None:
    """Train, draw and write."""
    threads = configure_process(threads)
    dataset = data.load("cifar_fs", data_root)
    commit = provenance.commit()  # before the files below make the tree dirty
    out.mkdir(parents=True, exist_ok=True)
    settings = [(k, method) for k in sorted(set(inner_steps)) for method in LEARNERS]
    seconds = 60 * minutes / len(settings)
    episodes = DataConfig(name="cifar_fs")
    curves = []
    with Progress() as progress:
        for k, method in settings:
            run = RunConfig(
                data=episodes,
                learner=LEARNERS[method].model_copy(update={"inner_steps": k}),
                training=TrainingConfig(iterations=1, val_tasks=val_tasks),
                seed=seed,
            )
            bar = progress.add_task(f"K = {k}, {method}", total=seconds)
            points, peak = train(run, dataset, seconds, partial(_show, progress, bar))
            curves.append(Curve(method, k, points, peak))
            progress.console.print(row(curves[-1]))
    draw(curves, out / "accuracy_vs_time.png")
    write_points(curves, out / "accuracy_vs_time.csv")
    options = "".join(f" --inner-steps {k}" for k in inner_steps)
    text = TEXT.format(
        command=f"python benchmarks/accuracy_vs_time.py --data-root data --minutes {minutes:g}"
        f"{options} --val-tasks {val_tasks} --threads {threads} --seed {seed}",
        hardware=provenance.hardware(torch.device("cpu")),
        commit=commit,
        data=episodes,
        learner=LEARNERS["memory_reduced"],
        seed=seed,
        threads=threads,
        seconds=seconds,
        warm_up=WARM_UP_STEPS,
        validations=VALIDATIONS,
        tasks=val_tasks,
        rows="\n".join(map(row, curves)),
        reading="\n".join(
            reading(curves[i : i + len(LEARNERS)]) for i in range(0, len(curves), len(LEARNERS))
        ),
    )
    (out / "accuracy_vs_time.md").write_text(text, encoding="utf-8")
    print(f"wrote {out / 'accuracy_vs_time.md'}")


def _show(progress: Progress, bar: TaskID, seconds: float) -> None:
    progress.update(bar, completed=seconds)


if __name__ == "__main__":
    main()
