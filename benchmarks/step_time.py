"""Time and memory of a meta-step as multiples of the floor.

    python benchmarks/step_time.py --image-size 84 --filters 32 --task-batch 4 --json

The floor is one forward and one backward pass of the same backbone in plain PyTorch, over the
support and query images of the step, one task at a time: no inner loop, no conjugate gradient, no
optimiser and no data loading. Its images are in channels_last, like those of a step, since a
backbone is slower in PyTorch's default format. The floor and the steps of all settings with the
same number of tasks are timed in turn in one process, so that other load on the machine affects all
of them.
"""

import itertools
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory

import click
import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

from memmeta.algorithms import ALGORITHMS
from memmeta.config import LearnerConfig, RunConfig, parse
from memmeta.data.dataset import ImageDataset
from memmeta.data.episodes import Split
from memmeta.networks import models
from memmeta.peak_memory import measure_peak
from memmeta.system import provenance
from memmeta.system.devices import chosen_device
from memmeta.system.runtime import configure_process
from memmeta.system.units import MIB
from memmeta.training import MetaTrainer

_WARM_UP = 3
"""Steps before the first timed one; the second and the third are measured for memory."""
_CLASSES, _IMAGES = 64, 40
_PROFILED = 15
"""Number of operators in a profile."""


@dataclass(frozen=True)
class Row:
    """Measurements of one setting."""

    algorithm: str
    feature_reuse: bool
    inner_steps: int
    cg_steps: int
    task_batch: int
    chunk: int | None
    precision: str
    step_seconds: float
    """Median time of a step."""
    floor_seconds: float
    """Median time of the floor."""
    data_over_step: float
    """Median ratio of the time for sampling tasks to the time of a step, within a turn."""
    step_over_floor: float
    """Median ratio of step to floor, within a turn."""
    low: float
    """Lower quartile of these ratios."""
    high: float
    """Upper quartile of these ratios."""
    step_over_first: float
    """Median ratio to the first setting with the same number of tasks, within a turn."""
    first_low: float
    """Lower quartile of these ratios."""
    first_high: float
    """Upper quartile of these ratios."""
    step_peak_mib: float
    floor_peak_mib: float
    peak_over_floor: float


def noise(size: int, folder: Path) -> ImageDataset:
    """A data set of random images in a memory-mapped file, like the cache of a real one."""
    path = folder / "train.npy"
    shape = (_CLASSES * _IMAGES, size, size, 3)
    np.save(path, np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    split = Split(
        np.load(path, mmap_mode="r"),
        np.arange(_CLASSES + 1) * _IMAGES,
        tuple(f"{c:02}" for c in range(_CLASSES)),
    )
    mean = std = (127.5,) * 3
    return ImageDataset("noise", split, split, split, mean, std, digest="")


class Floor:
    """Forward and backward passes of a plain backbone over the images of a step."""

    def __init__(self, run: RunConfig, shape: tuple[int, ...], device: torch.device) -> None:
        self.network: nn.Module = models.build_backbone(run.learner, shape).to(device)
        images = run.data.ways * (run.data.shots + run.data.queries)
        tasks = torch.randn(run.learner.task_batch * images, *shape, device=device)
        whole = tasks.contiguous(memory_format=torch.channels_last)
        self.tasks = whole.unflatten(0, (run.learner.task_batch, images))

    def __call__(self) -> None:
        """Run the passes and accumulate the network's gradients."""
        for images in self.tasks:
            self.network(images).sum().backward()

    def held(self) -> list[Tensor]:
        """Tensors that exist before and after a pass."""
        parameters = list(self.network.parameters())
        return [*parameters, *(p.grad for p in parameters if p.grad is not None), self.tasks]


def measure(
    runs: Sequence[RunConfig], dataset: ImageDataset, repeats: int, device: torch.device
) -> list[Row]:
    """Time the steps of `runs` in turn with the floor that they share."""
    floor = Floor(runs[0], dataset.input_shape, device)
    for _ in range(_WARM_UP):
        floor()
    _, floor_peak = measure_peak(floor, floor.held, device)
    ready = [_ready(run, dataset, device) for run in runs]
    works = [floor, partial(_sample, runs[0], dataset), *(trainer.step for trainer, _ in ready)]
    turns = [[_timed(work, device) for work in works] for _ in range(repeats)]
    floors, data, *all_steps = map(list, zip(*turns, strict=True))
    return [
        _row(run.learner, steps, floors, data, all_steps[0], peak, floor_peak)
        for run, steps, (_, peak) in zip(runs, all_steps, ready, strict=True)
    ]


def _ready(run: RunConfig, dataset: ImageDataset, device: torch.device) -> tuple[MetaTrainer, int]:
    """A trainer after its warm-up steps, and their peak memory in bytes."""
    # On a GPU the peak includes the tensors of earlier trainers.
    before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    trainer = MetaTrainer(run, dataset, device)
    for _ in range(_WARM_UP):
        trainer.step()
    assert trainer.peak_memory is not None
    return trainer, trainer.peak_memory - before


def _row(
    learner: LearnerConfig,
    steps: Sequence[float],
    floors: Sequence[float],
    data: Sequence[float],
    first: Sequence[float],
    peak: int,
    floor_peak: int,
) -> Row:
    low, over_floor, high = quantiles(_ratios(steps, floors), n=4)
    first_low, over_first, first_high = quantiles(_ratios(steps, first), n=4)
    return Row(
        learner.algorithm,
        learner.feature_reuse,
        learner.inner_steps,
        learner.cg_steps,
        learner.task_batch,
        learner.chunk,
        learner.precision,
        step_seconds=median(steps),
        floor_seconds=median(floors),
        data_over_step=median(_ratios(data, steps)),
        step_over_floor=over_floor,
        low=low,
        high=high,
        step_over_first=over_first,
        first_low=first_low,
        first_high=first_high,
        step_peak_mib=peak / MIB,
        floor_peak_mib=floor_peak / MIB,
        peak_over_floor=peak / floor_peak,
    )


def _ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Ratios of times within each turn."""
    return [a / b for a, b in zip(above, below, strict=True)]


def _sample(run: RunConfig, dataset: ImageDataset) -> None:
    """Sample the tasks of a step, different ones in each call."""
    first = next(_fresh_tasks) * run.learner.task_batch
    indices = range(first, first + run.learner.task_batch)
    dataset.episodes("train", run.data, queries=run.data.queries, seed=1, indices=indices)


_fresh_tasks = itertools.count()


def _timed(work: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    begun = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begun


def table(rows: Sequence[Row], title: str) -> Table:
    """A table with one row per setting."""
    result = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    for heading in (
        "",
        "K",
        "N",
        "tasks",
        "chunk",
        "s",
        "÷ floor",
        "quartiles",
        "÷ first",
        "quartiles",
        "data",
        "MiB",
        "÷ floor",
    ):
        result.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        result.add_row(
            _name(row),
            str(row.inner_steps),
            str(row.cg_steps) if row.algorithm == "memory_reduced" else "",
            str(row.task_batch),
            str(row.chunk or ""),
            f"{row.step_seconds:.3f}",
            f"{row.step_over_floor:.2f}",
            f"{row.low:.2f}–{row.high:.2f}",
            f"{row.step_over_first:.2f}",
            f"{row.first_low:.2f}–{row.first_high:.2f}",
            f"{row.data_over_step:.1%}",
            f"{row.step_peak_mib:.1f}",
            f"{row.peak_over_floor:.2f}",
        )
    return result


def print_profile(
    run: RunConfig, dataset: ImageDataset, repeats: int, device: torch.device
) -> None:
    """Print the operators with the largest self time in a step, with their shares."""
    trainer, _ = _ready(run, dataset, device)
    with torch.profiler.profile() as profile:
        for _ in range(repeats):
            trainer.step()
    time_of = attrgetter(
        "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    )
    operators = sorted(profile.key_averages(), key=time_of, reverse=True)
    total = sum(map(time_of, operators))
    for operator in operators[:_PROFILED]:
        share, calls = time_of(operator) / total, operator.count / repeats
        click.echo(f"{share:6.1%}  {calls:7.1f} calls per step  {operator.key}")


def _name(row: Row) -> str:
    kind = ""
    if ALGORITHMS[row.algorithm].can_recompute_features:
        kind = "cached" if row.feature_reuse else "naive"
    half = "bf16" if row.precision == "bfloat16" else ""
    return " ".join(filter(None, (row.algorithm, kind, half)))


@click.command()
@click.option("--algorithm", type=click.Choice([*ALGORITHMS]),
              multiple=True, default=["memory_reduced"], show_default=True)  # fmt: skip
@click.option("--feature-reuse/--no-feature-reuse", default=True, show_default=True,
              help="Whether inner steps of anil and itd_bio reuse support features.")  # fmt: skip
@click.option("--backbone", type=click.Choice(["conv4", "resnet12"]), default="conv4",
              show_default=True)  # fmt: skip
@click.option("--filters", default=64, show_default=True)
@click.option("--norm", type=click.Choice(["batch", "frozen", "group"]), default="batch",
              show_default=True)  # fmt: skip
@click.option("--image-size", type=click.IntRange(min=16), default=32, show_default=True,
              help="Height and width of RGB images.")  # fmt: skip
@click.option("--ways", default=5, show_default=True)
@click.option("--shots", default=5, show_default=True)
@click.option("--queries", default=15, show_default=True)
@click.option("--task-batch", type=click.IntRange(min=1), multiple=True, default=[4],
              show_default=True)  # fmt: skip
@click.option("--inner-steps", type=click.IntRange(min=0), multiple=True, default=[20],
              show_default=True, help="K.")  # fmt: skip
@click.option("--cg-steps", type=click.IntRange(min=0), multiple=True, default=[20],
              show_default=True, help="N.")  # fmt: skip
@click.option("--chunk", type=click.IntRange(min=0), multiple=True, default=[0],
              help="Images in the backbone at a time; 0 for all.")  # fmt: skip
@click.option("--precision", type=click.Choice(["float32", "bfloat16"]), multiple=True,
              default=["float32"], show_default=True)  # fmt: skip
@click.option("--repeats", type=click.IntRange(min=3), default=15, show_default=True)
@click.option("--device", help="PyTorch device. Default: a GPU if there is one.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads. Default: all.")
@click.option("--profile", is_flag=True, help="Print a profile of the first setting instead.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of rows.")
def main(
    algorithm: Sequence[str],
    feature_reuse: bool,
    image_size: int,
    task_batch: Sequence[int],
    inner_steps: Sequence[int],
    cg_steps: Sequence[int],
    chunk: Sequence[int],
    precision: Sequence[str],
    repeats: int,
    device: str | None,
    threads: int | None,
    profile: bool,
    as_json: bool,
    **fixed: object,
) -> None:
    """Time a meta-step and its floor, for all combinations of the repeated options."""
    configure_process(threads)
    torch_device = chosen_device(device)
    data = {name: fixed.pop(name) for name in ("ways", "shots", "queries")}
    groups = [
        [
            _run(data, {"algorithm": name, "task_batch": tasks, "inner_steps": k, "cg_steps": n,
                        "feature_reuse": feature_reuse
                        or not ALGORITHMS[name].can_recompute_features,
                        "chunk": images or None, "precision": bits, **fixed})
            for name, bits, images, k, n in itertools.product(
                algorithm, precision, chunk, inner_steps, cg_steps
            )
        ]
        for tasks in task_batch
    ]  # fmt: skip
    errors = Console(stderr=True)
    hidden = not errors.is_terminal
    with TemporaryDirectory() as folder:
        dataset = noise(image_size, Path(folder))
        if profile:
            print_profile(groups[0][0], dataset, repeats, torch_device)
            return
        rows = [
            row
            for group in track(groups, "measuring", console=errors, transient=True, disable=hidden)
            for row in measure(group, dataset, repeats, torch_device)
        ]
    hardware = provenance.hardware(torch_device)
    settings = {**data, "image_size": image_size, "repeats": repeats, "hardware": hardware}
    if as_json:
        click.echo(json.dumps([asdict(row) | fixed | settings for row in rows], indent=1))
    else:
        title = f"{image_size}×{image_size}, {fixed['backbone']}, {hardware}"
        # Wide enough for the table when the output goes to a file.
        Console(width=None if sys.stdout.isatty() else 112).print(table(rows, title))


def _run(data: dict[str, object], learner: dict[str, object]) -> RunConfig:
    training = {"iterations": 10**6}
    return parse(RunConfig, {"data": data, "learner": learner, "training": training}, "options")


if __name__ == "__main__":
    main()
