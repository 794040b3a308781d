"""Validation accuracy against training time on CIFAR-FS, for Algorithm 1 and ANIL at several K.

    python benchmarks/accuracy_vs_time.py --data-root data --minutes 10

writes docs/accuracy_vs_time.md, its figure, and the points of the figure as a CSV file.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

import click
import matplotlib.pyplot as plt
import numpy as np
import torch
from rich.progress import Progress, TaskID

from analysis.report.style import SERIES
from memmeta import data
from memmeta.command_line import data_root_option
from memmeta.config import RunConfig, parse
from memmeta.data.dataset import Dataset
from memmeta.evaluation import Evaluation
from memmeta.system import provenance
from memmeta.system.csv_text import csv_text
from memmeta.system.runtime import configure_process
from memmeta.system.units import MIB
from memmeta.training import MetaTrainer
from shared import out_option
from sweeps.engine.study.seeds import over_seeds

OWN = "memory_reduced"
LEARNERS = {
    OWN: {"algorithm": "memory_reduced"},
    "ANIL, cached": {"algorithm": "anil"},
    "ANIL, naive": {"algorithm": "anil", "feature_reuse": False},
}
MARKERS = ("o", "s", "^")
VALIDATIONS = 10
WARM_UP_STEPS = 3  # the first allocates; the other two are measured for memory

TEXT = """\
# Accuracy against training time

`{command}` on {hardware}, commit {commit}.

{data.ways}-way {data.shots}-shot CIFAR-FS, Conv4-{learner.filters}, {learner.task_batch} tasks per
step with {data.queries} query images per class. All methods use memmeta's defaults: inner_lr
{learner.inner_lr:g}, outer_lr {learner.outer_lr:g}, ridge {learner.ridge:g}, features
`{learner.feature_scaling}`. memory_reduced uses N = {learner.cg_steps} and no chunks. ANIL computes
the support features once per task (cached), or at every inner step (naive) as the paper's released
baselines do.

Every method is trained at every K with seeds {seeds}. With the same seed all methods begin with the
same backbone and see the same tasks in the same order. The curves run one after another in one
process (CPU threads: {threads}), seed by seed. Each trains for {seconds:.1f} s. The clock counts
training only. It excludes validation and the first {warm_up} steps, two of which are measured for
memory. Each curve is validated at the start of the clock and {validations} times at even intervals,
on the same {tasks} tasks for every seed.

![Validation accuracy against seconds of training, a panel for each K](accuracy_vs_time.png)

A line is the mean over seeds, and its band is their range.

| K | method | final accuracy, % | steps | s/step | peak, MiB |
|---|---|---|---|---|---|
{rows}

Accuracy is the mean over seeds ± the half-width of its 95 % t-interval; steps and s/step are
medians over seeds. The differences below are paired by seed and given as their mean ± the
half-width of its 95 % t-interval; the ratios of steps are medians over seeds.

{reading}

All points of the figure are in [accuracy_vs_time.csv](accuracy_vs_time.csv).
"""


class Point(NamedTuple):
    """One validation."""

    seconds: float
    """Training time before it."""
    steps: int
    """Outer steps before it."""
    val: Evaluation


class Curve(NamedTuple):
    """One training run."""

    run: RunConfig
    points: list[Point]
    peak: int
    """Peak memory of a step in bytes, the same for every seed."""

    @property
    def accuracy(self) -> float:
        """Final validation accuracy in per cent."""
        return 100 * self.points[-1].val.value

    @property
    def steps(self) -> int:
        """Timed outer steps."""
        return self.points[-1].steps

    @property
    def seconds_per_step(self) -> float:
        """Mean time of a timed step."""
        return self.points[-1].seconds / self.steps


Curves = dict[tuple[int, str], list[Curve]]
"""Curves by K and method, one per seed, with the seeds in the same order everywhere."""


def train(
    run: RunConfig, dataset: Dataset, seconds: float, on_time: Callable[[float], None]
) -> tuple[list[Point], int]:
    """Train for `seconds`; return the validations, and the peak memory of a step in bytes.

    Args:
        run: the run to train; its budget is ignored.
        dataset: its data set.
        seconds: training time. The step that exceeds it is the last one.
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


def draw(curves: Curves, path: Path) -> None:
    """Draw the figure, with one panel per K."""
    values = sorted({k for k, _ in curves})
    figure, panels = plt.subplots(
        1, len(values), figsize=(4.5 * len(values), 4), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for axes, k in zip(panels[0], values, strict=True):
        for method, colour, marker in zip(LEARNERS, SERIES, MARKERS, strict=False):
            points = [curve.points for curve in curves[k, method]]
            seconds = np.mean([[point.seconds for point in seed] for seed in points], axis=0)
            accuracy = 100 * np.array([[point.val.value for point in seed] for seed in points])
            axes.fill_between(
                seconds, accuracy.min(0), accuracy.max(0), color=colour, alpha=0.2, linewidth=0
            )
            axes.plot(
                seconds, accuracy.mean(0), color=colour, marker=marker, markersize=4, label=method
            )
        axes.set(title=f"K = {k}", xlabel="training time, s", xlim=(0, None))
        axes.grid(alpha=0.3)
    panels[0][0].set_ylabel("validation accuracy, %")
    lines, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(lines, labels, frameon=False, loc="outside upper center", ncols=len(lines))
    figure.savefig(path, dpi=150)


def write_points(curves: Curves, path: Path) -> None:
    """Write the validations of all curves as CSV."""
    rows = (
        {
            "algorithm": run.learner.algorithm,
            "feature_reuse": run.learner.feature_reuse,
            "inner_steps": run.learner.inner_steps,
            "seed": run.seed,
            "seconds": round(point.seconds, 3),
            "steps": point.steps,
            "val_accuracy": point.val.value,
            "val_interval": point.val.interval,
        }
        for group in curves.values()
        for run, points, _ in group
        for point in points
    )
    path.write_text(csv_text(rows), encoding="utf-8")


def row(k: int, method: str, group: Sequence[Curve]) -> str:
    """Row of the table for one K and method, from the curves of all seeds."""
    mean, interval = over_seeds([curve.accuracy for curve in group])
    steps = median(curve.steps for curve in group)
    seconds = median(curve.seconds_per_step for curve in group)
    return (
        f"| {k} | {method} | {mean:.1f} ± {interval:.1f} | {steps:.0f} | {seconds:.3f} "
        f"| {group[0].peak / MIB:.0f} |"
    )


def reading(k: int, curves: Curves) -> str:
    """The comparison at one K in words."""
    own = curves[k, OWN]
    sentences = []
    for other in list(LEARNERS)[1:]:
        pairs = list(zip(own, curves[k, other], strict=True))
        mean, interval = over_seeds([a.accuracy - b.accuracy for a, b in pairs])
        difference = f"{mean:+.1f}".replace("-", "−")
        sentences.append(
            f"{OWN} − {other} is {difference} ± {interval:.1f} percentage points, with "
            f"{median(a.steps / b.steps for a, b in pairs):.2f} times as many steps and "
            f"{own[0].peak / curves[k, other][0].peak:.2f} times the peak memory."
        )
    return f"- K = {k}: " + " ".join(sentences)


@click.command()
@data_root_option
@click.option(
    "--minutes", type=click.FloatRange(min=0, min_open=True), default=10.0, show_default=True,
    help="Total training time, divided evenly among curves and seeds; excludes validation.",
)  # fmt: skip
@click.option("--inner-steps", "-k", type=click.IntRange(min=0), multiple=True, default=(5, 20),
              show_default=True)  # fmt: skip
@click.option("--val-tasks", type=click.IntRange(min=2), default=200, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads; default: all.")
@click.option("--seed", type=click.IntRange(min=0), multiple=True, default=(0, 1, 2),
              show_default=True, help="Two or more.")  # fmt: skip
@out_option
def main(
    data_root: Path,
    minutes: float,
    inner_steps: tuple[int, ...],
    val_tasks: int,
    threads: int | None,
    seed: tuple[int, ...],
    out: Path,
) -> None:
    """Measure validation accuracy against training time, and write the results page."""
    values, seeds = sorted(set(inner_steps)), sorted(set(seed))
    if len(seeds) < 2:
        raise click.UsageError("give --seed at least twice: intervals over seeds need two")
    threads = configure_process(threads)
    dataset = data.load("cifar_fs", data_root)
    commit = provenance.commit()  # before the output makes the work tree dirty
    out.mkdir(parents=True, exist_ok=True)
    curves: Curves = {(k, method): [] for k in values for method in LEARNERS}
    seconds = 60 * minutes / (len(curves) * len(seeds))
    with Progress() as progress:
        for number in seeds:
            for (k, method), group in curves.items():
                run = configured(method, k, val_tasks, number)
                title = f"seed {number}, K = {k}, {method}"
                bar = progress.add_task(title, total=seconds)
                group.append(
                    Curve(run, *train(run, dataset, seconds, partial(_show, progress, bar)))
                )
                progress.console.print(f"{title}: {group[-1].accuracy:.1f} %")
    draw(curves, out / "accuracy_vs_time.png")
    write_points(curves, out / "accuracy_vs_time.csv")
    options = "".join(f" --inner-steps {k}" for k in values)
    options += f" --val-tasks {val_tasks} --threads {threads}"
    options += "".join(f" --seed {number}" for number in seeds)
    first = curves[values[0], OWN][0].run
    text = TEXT.format(
        command="python benchmarks/accuracy_vs_time.py --data-root data "
        f"--minutes {minutes:g}{options}",
        hardware=provenance.hardware(torch.device("cpu")),
        commit=commit,
        data=first.data,
        learner=first.learner,
        seeds=", ".join(map(str, seeds)),
        threads=threads,
        seconds=seconds,
        warm_up=WARM_UP_STEPS,
        validations=VALIDATIONS,
        tasks=val_tasks,
        rows="\n".join(row(*setting, group) for setting, group in curves.items()),
        reading="\n".join(reading(k, curves) for k in values),
    )
    (out / "accuracy_vs_time.md").write_text(text, encoding="utf-8")
    print(f"wrote {out / 'accuracy_vs_time.md'}")


def configured(method: str, k: int, val_tasks: int, seed: int) -> RunConfig:
    """Config of one curve; its number of steps is determined by the clock, not by the config."""
    values = {
        "data": {"name": "cifar_fs"},
        "learner": {**LEARNERS[method], "inner_steps": k},
        "training": {"iterations": 1, "val_tasks": val_tasks},
        "seed": seed,
    }
    return parse(RunConfig, values, "options")


def _show(progress: Progress, bar: TaskID, seconds: float) -> None:
    progress.update(bar, completed=seconds)


if __name__ == "__main__":
    main()
