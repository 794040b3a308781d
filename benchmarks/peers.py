"""A meta-step of memmeta beside the same work done with other libraries and in plain PyTorch.

    python benchmarks/peers.py

The work is the gradient of ANIL's mean query loss after K inner steps, without optimiser and data.
All have the same weights, images and losses, and the same Conv4: others as PyTorch's layers,
memmeta in its own way. They run in one process and in turn, so that what else the machine does
meets all. The floor is one forward and one backward pass of that network, as layers, over the same
images, a task at a time.

learn2learn, TorchOpt and higher are installed by the first run, into an environment of their own;
what cannot be installed or imported is named and left out.

Before anything is timed the gradients are compared, in float64 and with small images: in float32
a maximum or a ReLU next to a tie goes the other way now and then. ANIL's have to equal memmeta's
`anil`, MAML's its `maml`. memory_reduced does not learn phi^0 and estimates the gradient of a
solved inner problem, as TorchOpt's implicit one does: these have to equal each other, and ANIL's
for theta where both have converged. Whoever differs is named and not timed.
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
from memmeta.command_line import chosen_device, run_command
from memmeta.config import RunConfig, parse
from memmeta.system import provenance
from memmeta.system.runtime import configure_process

ROOT = Path(__file__).resolve().parent.parent
INNER_LR = 0.1
RIDGE = 0.1


@click.command()
@click.option("--filters", type=click.IntRange(min=1), default=32, show_default=True)
@click.option("--norm", type=click.Choice(["batch", "group"]), default="batch", show_default=True,
              help="With group a chunk may be a support set.")  # fmt: skip
@click.option("--image-size", type=click.IntRange(min=16), default=84, show_default=True,
              help="Height and width, RGB.")  # fmt: skip
@click.option("--ways", default=5, show_default=True)
@click.option("--shots", default=5, show_default=True)
@click.option("--queries", default=15, show_default=True)
@click.option("--task-batch", default=4, show_default=True)
@click.option("--inner-steps", default=20, show_default=True, help="K.")
@click.option("--cg-steps", default=20, show_default=True, help="N.")
@click.option("--maml-steps", type=click.IntRange(min=0), default=1, show_default=True,
              help="K of MAML, in a table of its own; 0: without it.")  # fmt: skip
@click.option("--repeats", type=click.IntRange(min=3), default=15, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads; default: all.")
@click.option("--device", help="PyTorch device; default: a GPU if there is one.")
@click.option("--environment", type=click.Path(path_type=Path), default=ROOT / ".venv" / "peers",
              help="Where the libraries are, or will be; default: .venv/peers.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Everything, for machines.")
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
    """Compare gradients, then time and memory of those whose gradients agree."""
    learner = {
        "algorithm": "anil", "feature_scaling": "sqrt_dim", "filters": filters, "norm": norm,
        "task_batch": task_batch, "inner_steps": inner_steps, "inner_lr": INNER_LR,
        "cg_steps": cg_steps, "ridge": RIDGE,
    }  # fmt: skip
    data = {"ways": ways, "shots": shots, "queries": queries}
    run = parse(RunConfig, {"data": data, "learner": learner}, "options")
    place = chosen_device(device)
    setting = Setting(run, image_size, device=str(place))
    left_out = missing(install(environment))
    versions = {
        name: importlib.metadata.version(name) for name in LIBRARIES if name not in left_out
    }
    threads = configure_process(threads)
    # In float64 a convolution is many small parallel regions, and each would wait for the cores.
    configure_process(1)
    found = compare(setting, maml_steps, left_out)
    converged = converged_difference(setting)
    configure_process(threads)
    tables = measure_all(setting, maml_steps, left_out, repeats, found)
    hardware = provenance.hardware(place)
    if as_json:
        facts = {
            **data, **learner, "image_size": image_size, "maml_steps": maml_steps,
            "repeats": repeats, "hardware": hardware, "versions": versions,
            "converged_difference": converged, "left_out": left_out,
            "rows": [{"table": k, **asdict(row)} for k, rows in tables.items() for row in rows],
        }  # fmt: skip
        click.echo(json.dumps(facts, indent=1))
        return
    # In a file it has the room it needs.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    episode = f"{ways}-way {shots}-shot, {queries} queries, {task_batch} tasks"
    title = f"{image_size}×{image_size}, Conv4-{filters}, {episode}, {hardware}"
    steps = {"anil": f"K = {inner_steps}, N = {cg_steps}", "maml": f"K = {maml_steps}"}
    for name, rows in tables.items():
        console.print(table(rows, f"{steps[name]}: {title}"))
    for line in _remarks(versions, found, converged, left_out):
        console.print(line, markup=False, soft_wrap=True)


def _remarks(
    versions: Mapping[str, str],
    found: Mapping[str, float],
    converged: float,
    left_out: Mapping[str, str],
) -> Iterator[str]:
    agreeing = max(found[name] for name in found if name not in left_out)
    yield f"gradients equal their reference to {agreeing:.0e}, in float64"
    yield f"memory_reduced's for theta equals ANIL's to {converged:.0e} where both have converged"
    yield from (f"with {name} {version}" for name, version in versions.items())
    yield from (f"left out: {name}: {reason}" for name, reason in left_out.items())


if __name__ == "__main__":
    run_command(main)
