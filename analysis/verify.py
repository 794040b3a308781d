"""A run of an exported file, trained anew: whether it gives what the file says it gives."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from memmeta import data
from memmeta.command_line import chosen_device, train_to_end
from memmeta.config import RunConfig, parse
from memmeta.data.dataset import Dataset
from memmeta.errors import InputError
from memmeta.exported import FreshSeed, Provenance, read_run
from memmeta.metric import Metric
from memmeta.system import provenance
from memmeta.system.runtime import configure_process
from memmeta.training import DivergedError, MetaTrainer


@dataclass(frozen=True)
class Claim:
    """What a file says of a run, nothing missing."""

    config: RunConfig
    """The run."""
    fresh_seed: FreshSeed
    """What a training seed that nobody has used is to give."""
    peak_memory_bytes: int
    """Peak memory of a training step."""
    seconds_per_step: float | None
    """Mean wall time of an outer step; None if it was not measured."""
    used_seeds: frozenset[int]
    """Training seeds that the claim stands on."""
    provenance: Provenance
    """Where it comes from."""


def read_claim(path: Path, rank: int) -> Claim:
    """The claim of the run at `rank` in an exported file.

    Raises:
        InputError: there is no such run, or the file does not say enough of it.
    """
    run = read_run(path, rank)
    results, source = run.results, f"{path}, rank {rank}"
    if results is None or run.provenance is None:
        raise InputError(f"{source}: no results to verify; python -m analysis export writes them")
    if results.fresh_seed is None:
        raise InputError(
            f"{source}: does not say what a fresh seed gives; the sweep needs stage confirm, with "
            "two seeds or more, and then python -m analysis export"
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
    """Train the run with a fresh seed and print what it gives beside what is stated.

    The time of a step is printed and not judged.

    Args:
        claim: what is verified.
        console: where to print.
        data_root: folder with the data sets.
        cache: folder of their caches; None: in the data root.
        device: PyTorch device; by default a GPU if there is one.
        threads: CPU threads; those of the run by default.
        seed: the training seed; by default one more than the largest that the claim stands on.

    Returns:
        What does not hold and by how much, none if all does.

    Raises:
        InputError: the seed is not a fresh one; there are no such data or no such device.
    """
    config = with_fresh_seed(claim, seed)
    configure_process(threads or claim.provenance.threads)
    dataset = data.load(config.data.name, data_root, cache)
    if dataset.digest != claim.provenance.data_digest:
        return [_other_data(claim, dataset)]
    place = chosen_device(device)
    console.print(f"fresh seed {config.seed}, {config.iterations} outer steps on {place}")
    trainer = MetaTrainer(config, dataset, place)
    try:
        train_to_end(trainer, console)
    except DivergedError as error:
        return [f"{error} with seed {config.seed}"]
    return _judge(claim, trainer, console)


def with_fresh_seed(claim: Claim, seed: int | None) -> RunConfig:
    """The run with `seed`, by default one more than the largest that the claim stands on.

    Raises:
        InputError: the claim stands on that seed, or it is none.
    """
    if seed in claim.used_seeds:
        used = ", ".join(map(str, sorted(claim.used_seeds)))
        raise InputError(f"--seed {seed}: not a fresh one, what is stated stands on {used}")
    fresh = max(claim.used_seeds) + 1 if seed is None else seed
    return parse(RunConfig, claim.config.model_dump() | {"seed": fresh}, "command line")


def value_complaint(metric: Metric, stated: FreshSeed, value: float) -> str | None:
    """By how much a value misses the stated interval; None if it is inside, ends included."""
    if stated.low <= value <= stated.high:
        return None
    side, end = ("below", stated.low) if value < stated.low else ("above", stated.high)
    scale, unit = (100, " points") if metric.unit else (1, "")
    return (
        f"{metric.title} {metric.alone(value)} is {scale * abs(value - end):.2g}{unit} {side} "
        f"the stated {_range(metric, stated)}"
    )


def memory_complaint(stated: int, peak: int, same_hardware: bool) -> str | None:
    """By how much a peak differs from the stated one; None if it does not.

    Args:
        stated: bytes.
        peak: bytes.
        same_hardware: whether they have to be equal; else they may differ by 1 %, for allocators
            and kernels round sizes in their own ways.
    """
    off = abs(peak - stated)
    if off == 0 or (not same_hardware and 100 * off <= stated):
        return None
    direction = "more" if peak > stated else "less"
    return (
        f"peak memory is {off:,} B ({off / stated:.2%}) {direction} than the stated {stated:,} B "
        f"({_rule(same_hardware)})"
    )


def _judge(claim: Claim, trainer: MetaTrainer, console: Console) -> list[str]:
    """Print what was measured beside what is stated, and return what does not hold."""
    metric, stated = claim.config.data.metric, claim.fresh_seed
    value, peak = trainer.reports[-1].val.value, trainer.peak_memory
    assert peak is not None  # There were two steps.
    difference = provenance.expected_difference(claim.provenance.hardware, trainer.device)
    same = difference is None
    if difference:
        console.print(f"a difference in the last digits is to be expected: {difference}")
    off_value = value_complaint(metric, stated, value)
    off_memory = memory_complaint(claim.peak_memory_bytes, peak, same)
    for name, measured, said, verdict in (
        (metric.title, metric.alone(value), _range(metric, stated), _verdict(off_value)),
        (
            "peak memory",
            _mebibytes(peak),
            _mebibytes(claim.peak_memory_bytes),
            f"{_verdict(off_memory)} ({_rule(same)})",
        ),
        (
            "step",
            _seconds(trainer.seconds_per_step),
            _seconds(claim.seconds_per_step),
            "not judged",
        ),
    ):
        console.print(f"{name + ':':<13}{measured}, stated {said}: {verdict}", soft_wrap=True)
    return [complaint for complaint in (off_value, off_memory) if complaint]


def _other_data(claim: Claim, dataset: Dataset) -> str:
    name, stated = claim.config.data.name, claim.provenance.data_digest
    return f"{name} is other data than stated, SHA-256 {dataset.digest[:12]}, not {stated[:12]}"


def _rule(same_hardware: bool) -> str:
    return "same hardware: to the byte" if same_hardware else "other hardware: within 1 %"


def _verdict(complaint: str | None) -> str:
    return "does not hold" if complaint else "holds"


def _range(metric: Metric, stated: FreshSeed) -> str:
    return f"{metric.alone(stated.low)} to {metric.alone(stated.high)}"


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"


def _seconds(seconds: float | None) -> str:
    return "not measured" if seconds is None else f"{seconds:.3f} s"
