"""Compare a meta-step of memmeta with other libraries and with plain PyTorch.

    python benchmarks/peers.py

The computation is the gradient of ANIL's mean query loss after K inner steps, without optimiser and
data loading. All contenders have the same weights, images, losses and Conv4: peers use PyTorch's
layers, memmeta its fused blocks. They run in one process and in turn, so that other load on the
machine affects all of them. The floor is one forward and one backward pass of the network of layers
over the same images, one task at a time.

The first run installs learn2learn, TorchOpt and higher into a separate environment. Libraries that
cannot be installed or imported are named and left out.

Gradients are compared before the timing, in float64 and with small images: in float32 a maximum or
a ReLU close to a tie can take the other branch. The gradients of ANIL must equal those of memmeta's
`anil`, those of MAML its `maml`. memory_reduced does not learn phi^0 and estimates the gradient of
a solved inner problem, as TorchOpt's implicit gradient does: these two must agree, and agree with
ANIL for theta after convergence. Contenders that differ are named and not timed.
"""

import importlib.metadata
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console

from contenders.gradients import compare, converged_difference
from contenders.libraries import LIBRARIES, install, missing
from contenders.measuring import measure_all, table
from contenders.work import Setting
from memmeta.command_line import run_command
from memmeta.config import RunConfig, parse
from memmeta.system import provenance
from memmeta.system.devices import chosen_device
from memmeta.system.runtime import configure_process

ROOT = Path(__file__).resolve().parent.parent
INNER_LR = 0.1
RIDGE = 0.1


@click.command()
@click.option("--filters", type=click.IntRange(min=1), default=32, show_default=True)
@click.option("--norm", type=click.Choice(["batch", "group"]), default="batch", show_default=True,
              help="With group, a chunk can be a support set.")  # fmt: skip
@click.option("--image-size", type=click.IntRange(min=16), default=84, show_default=True,
              help="Height and width of RGB images.")  # fmt: skip
@click.option("--ways", default=5, show_default=True)
@click.option("--shots", default=5, show_default=True)
@click.option("--queries", default=15, show_default=True)
@click.option("--task-batch", default=4, show_default=True)
@click.option("--inner-steps", default=20, show_default=True, help="K.")
@click.option("--cg-steps", default=20, show_default=True, help="N.")
@click.option("--maml-steps", type=click.IntRange(min=0), default=1, show_default=True,
              help="K of MAML, which has a separate table; 0 to exclude MAML.")  # fmt: skip
@click.option("--repeats", type=click.IntRange(min=3), default=15, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads. Default: all.")
@click.option("--device", help="PyTorch device. Default: a GPU if there is one.")
@click.option("--environment", type=click.Path(path_type=Path), default=ROOT / ".venv" / "peers",
              help="Environment of the peer libraries. Default: .venv/peers.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def main(
    filters: int,
    norm: str,
    image_size: int,
    ways: int,
    shots: int,
    queries: int,
    task_batch: int,
    inner_steps: int,
    cg_steps: int,
    maml_steps: int,
    repeats: int,
    threads: int | None,
    device: str | None,
    environment: Path,
    as_json: bool,
) -> None:
    """Compare gradients, then time and memory of the contenders whose gradients agree."""
    learner = {
        "algorithm": "anil", "feature_scaling": "sqrt_dim", "filters": filters, "norm": norm,
        "task_batch": task_batch, "inner_steps": inner_steps, "inner_lr": INNER_LR,
        "cg_steps": cg_steps, "ridge": RIDGE,
    }  # fmt: skip
    data = {"ways": ways, "shots": shots, "queries": queries}
    run = parse(RunConfig, {"data": data, "learner": learner}, "options")
    torch_device = chosen_device(device)
    setting = Setting(run, image_size, device=str(torch_device))
    left_out = missing(install(environment))
    versions = {
        name: importlib.metadata.version(name) for name in LIBRARIES if name not in left_out
    }
    threads = configure_process(threads)
    # In float64 a convolution consists of many small parallel regions, for which threads are slow.
    configure_process(1)
    differences = compare(setting, maml_steps, left_out)
    converged = converged_difference(setting)
    configure_process(threads)
    tables = measure_all(setting, maml_steps, left_out, repeats, differences)
    hardware = provenance.hardware(torch_device)
    if as_json:
        facts = {
            **data, **learner, "image_size": image_size, "maml_steps": maml_steps,
            "repeats": repeats, "hardware": hardware, "versions": versions,
            "converged_difference": converged, "left_out": left_out,
            "rows": [{"table": k, **asdict(row)} for k, rows in tables.items() for row in rows],
        }  # fmt: skip
        click.echo(json.dumps(facts, indent=1))
        return
    # Wide enough for the table when the output goes to a file.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    episode = f"{ways}-way {shots}-shot, {queries} queries, {task_batch} tasks"
    title = f"{image_size}×{image_size}, Conv4-{filters}, {episode}, {hardware}"
    steps = {"anil": f"K = {inner_steps}, N = {cg_steps}", "maml": f"K = {maml_steps}"}
    for name, rows in tables.items():
        console.print(table(rows, f"{steps[name]}: {title}"))
    for line in _remarks(versions, differences, converged, left_out):
        console.print(line, markup=False, soft_wrap=True)


def _remarks(
    versions: Mapping[str, str],
    differences: Mapping[str, float],
    converged: float,
    left_out: Mapping[str, str],
) -> Iterator[str]:
    largest = max(d for name, d in differences.items() if name not in left_out)
    yield f"gradients equal their references to {largest:.0e}, in float64"
    yield f"after convergence, memory_reduced's for theta equals ANIL's to {converged:.0e}"
    yield from (f"with {name} {version}" for name, version in versions.items())
    yield from (f"left out: {name}: {reason}" for name, reason in left_out.items())


if __name__ == "__main__":
    run_command(main)
