"""Verify a run of an exported file: train it with a fresh seed and compare with its claim."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from analysis.formatting import mebibytes
from memmeta import data
from memmeta.config import RunConfig, parse
from memmeta.data.dataset import Dataset
from memmeta.errors import DivergedError, InputError
from memmeta.exported import FreshSeed, Provenance, read_run
from memmeta.fit import train_to_end
from memmeta.metric import Metric
from memmeta.progress import ConsoleProgress
from memmeta.system import provenance
from memmeta.system.devices import chosen_device
from memmeta.system.runtime import configure_process
from memmeta.training import MetaTrainer


@dataclass(frozen=True)
class Claim:
    """The results that a file states for a run, with everything needed to verify them."""

    config: RunConfig
    """Config of the run."""
    fresh_seed: FreshSeed
    """Predicted result for an unused training seed."""
    peak_memory_bytes: int
    """Peak memory of a training step."""
    seconds_per_step: float | None
    """Mean wall time of an outer step; None if it was not measured."""
    used_seeds: frozenset[int]
    """Training seeds that the claim is based on."""
    provenance: Provenance
    """Code, hardware and data of the stated results."""
    others: tuple[str, ...] = ()
    """Other data sets with stated results, which are not verified."""


def read_claim(path: Path, rank: int) -> Claim:
    """Read the claim for the run at `rank` in an exported file.

    Raises:
        InputError: the file has no such run, or lacks results to verify.
    """
    run = read_run(path, rank)
    results, source = run.results, f"{path}, rank {rank}"
    if results is None or run.provenance is None:
        raise InputError(f"{source}: no results to verify; memmeta export writes them")
    if results.fresh_seed is None:
        raise InputError(
            f"{source}: has no prediction for a fresh seed, which takes two confirmed seeds. Run "
            "memmeta sweep STUDY --stage confirm --seeds 2 with the options of the sweep, and then "
            "memmeta export"
        )
    if results.peak_memory_bytes is None or run.config.iterations < 2:
        raise InputError(f"{source}: a run of one step has no peak memory to verify")
    return Claim(
        config=run.config,
        fresh_seed=results.fresh_seed,
        peak_memory_bytes=results.peak_memory_bytes,
        seconds_per_step=results.seconds_per_step,
        used_seeds=frozenset(
            [run.config.seed, *(results.confirmed.seeds if results.confirmed else [])]
        ),
        provenance=run.provenance,
        others=tuple(results.confirmed.others) if results.confirmed else (),
    )


def verify(
    claim: Claim,
    console: Console,
    *,
    data_root: Path,
    cache: Path | None = None,
    device: str | None,
    threads: int | None,
    seed: int | None,
) -> list[str]:
    """Train the run with a fresh seed and print its results next to the stated ones.

    The time of a step is printed but not verified.

    Args:
        claim: the claim to verify.
        console: console for the output.
        data_root: folder with the data sets.
        cache: folder of their caches; None for the data root.
        device: PyTorch device; None for a GPU if there is one.
        threads: number of CPU threads; None for that of the run.
        seed: training seed; None for one above the largest seed that the claim is based on.

    Returns:
        The deviations from the claim; empty if it is verified.

    Raises:
        InputError: the seed was used before, or the data or the device do not exist.
    """
    config = with_fresh_seed(claim, seed)
    configure_process(threads or claim.provenance.threads)
    dataset = data.load(config.data.name, data_root, cache)
    if dataset.digest != claim.provenance.data_digest:
        return [_other_data(claim, dataset)]
    torch_device = chosen_device(device)
    console.print(f"fresh seed {config.seed}, {config.iterations} outer steps on {torch_device}")
    trainer = MetaTrainer(config, dataset, torch_device)
    try:
        train_to_end(trainer, ConsoleProgress(console))
    except DivergedError as error:
        return [f"{error} with seed {config.seed}"]
    return _compare(claim, trainer, console)


def with_fresh_seed(claim: Claim, seed: int | None) -> RunConfig:
    """The config with `seed`; None for one above the largest seed that the claim is based on.

    Raises:
        InputError: the claim is based on that seed, or it is not a valid seed.
    """
    if seed in claim.used_seeds:
        used = ", ".join(map(str, sorted(claim.used_seeds)))
        raise InputError(f"--seed {seed}: not a fresh seed; the stated results are based on {used}")
    fresh = max(claim.used_seeds) + 1 if seed is None else seed
    return parse(RunConfig, claim.config.model_dump() | {"seed": fresh}, "command line")


def metric_deviation(metric: Metric, stated: FreshSeed, value: float) -> str | None:
    """How far a value lies outside the stated interval, as text; None if it lies inside.

    Args:
        metric: the metric of the run.
        stated: the stated interval, with its ends included.
        value: the measured value.
    """
    if stated.low <= value <= stated.high:
        return None
    side, end = ("below", stated.low) if value < stated.low else ("above", stated.high)
    unit = " points" if metric.unit else ""
    return (
        f"{metric.title} {metric.alone(value)} is {metric.scale * abs(value - end):.2g}{unit} "
        f"{side} the stated {_range(metric, stated)}"
    )


def memory_deviation(stated: int, peak: int, same_hardware: bool) -> str | None:
    """How much a peak differs from the stated one; None if the difference is accepted.

    Args:
        stated: stated peak in bytes.
        peak: measured peak in bytes.
        same_hardware: whether the peaks must be equal. On other hardware they may differ by 1 %,
            since allocators and kernels round sizes differently.
    """
    difference = abs(peak - stated)
    if difference == 0 or (not same_hardware and 100 * difference <= stated):
        return None
    direction = "more" if peak > stated else "less"
    return (
        f"peak memory is {difference:,} B ({difference / stated:.2%}) {direction} than the stated "
        f"{stated:,} B ({_rule(same_hardware)})"
    )


def _compare(claim: Claim, trainer: MetaTrainer, console: Console) -> list[str]:
    """Print measured next to stated results and return the deviations."""
    metric, stated = claim.config.data.metric, claim.fresh_seed
    value, peak = trainer.reports[-1].val.value, trainer.peak_memory
    assert peak is not None  # a claim has at least two steps
    difference = provenance.expected_difference(claim.provenance.hardware, trainer.device)
    same = difference is None
    if difference:
        console.print(f"the last digits may differ: {difference}")
    metric_problem = metric_deviation(metric, stated, value)
    memory_problem = memory_deviation(claim.peak_memory_bytes, peak, same)
    for name, measured, expected, verdict in (
        (metric.title, metric.alone(value), _range(metric, stated), _verdict(metric_problem)),
        (
            "peak memory",
            f"{mebibytes(peak)} MiB",
            f"{mebibytes(claim.peak_memory_bytes)} MiB",
            f"{_verdict(memory_problem)} ({_rule(same)})",
        ),
        (
            "step",
            _seconds(trainer.seconds_per_step),
            _seconds(claim.seconds_per_step),
            "not verified",
        ),
    ):
        console.print(f"{name + ':':<13}{measured}, stated {expected}: {verdict}", soft_wrap=True)
    if claim.others:
        console.print(f"results on {', '.join(claim.others)}: not verified", soft_wrap=True)
    return [problem for problem in (metric_problem, memory_problem) if problem]


def _other_data(claim: Claim, dataset: Dataset) -> str:
    name, stated = claim.config.data.name, claim.provenance.data_digest
    return (
        f"{name} differs from the stated data: SHA-256 {dataset.digest[:12]} instead of "
        f"{stated[:12]}"
    )


def _rule(same_hardware: bool) -> str:
    return "same hardware: to the byte" if same_hardware else "other hardware: within 1 %"


def _verdict(problem: str | None) -> str:
    return "does not hold" if problem else "holds"


def _range(metric: Metric, stated: FreshSeed) -> str:
    return f"{metric.alone(stated.low)} to {metric.alone(stated.high)}"


def _seconds(seconds: float | None) -> str:
    return "not measured" if seconds is None else f"{seconds:.3f} s"
