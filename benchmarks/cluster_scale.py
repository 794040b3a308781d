"""Load of the driver of a sweep on many GPUs, in a simulation.

    python benchmarks/cluster_scale.py

starts a Ray cluster of 16 nodes on this machine, each with a simulated GPU, and runs a sweep of 256
trials that pause instead of training. Ledger, search, placement, Ray Tune and MLflow are the real
ones. Writes docs/cluster_scale.md; takes about eight minutes.
"""

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean, quantiles
from typing import Any

import click
import torch

from memmeta import checkpoint, data
from memmeta.command_line import data_root_option, run_command
from memmeta.config import DataConfig, LearnerConfig, TrainingConfig
from memmeta.system import provenance
from memmeta.system.units import MIB
from memmeta.training import MetaTrainer
from shared import out_option
from sweeps.engine.study import Study

STUDY = Study(
    name="scale",
    data=DataConfig(name="glyphs", shots=1),
    training=TrainingConfig(iterations=20, evaluations=2, val_tasks=60),
    trials=256,
)

PAUSE = 5.0
"""Mean seconds between validations of a trial; drawn between 0.5 and 1.5 times this value."""

TEXT = """\
# The driver of a sweep on many GPUs

`{command}` on {hardware}, commit {commit}.

A real Ray cluster of {nodes} nodes, all on this machine, each with one CPU and a simulated GPU.
It runs {trials} trials of stage search (TPE), {nodes} at a time. Instead of training, each trial
pauses {reports} times for about {pause:.0f} seconds and reports a validation after each pause.
Everything else is as in any sweep: ledger, proposals, predictions of memory, placement, Ray Tune,
MLflow on SQLite. Results arrive {rate:.1f} times per second, as often as from {equal:.0f} GPUs
with trials of ten minutes and as many validations.

| | |
|---|---|
| checks of all nodes before the first trial | {check:.0f} s |
| from then until the last trial ended | {span:.0f} s |
| share of that time outside the pauses | {outside:.0%} |
| driver: CPU per trial | {cpu:.2f} s |
| the same, of the first and the last {part} trials | {first:.2f} s, {last:.2f} s |
| driver: peak resident set | {rss:.0f} MiB |
| journal | {journal:.1f} KiB per trial |
| MLflow: a write, mean (90 %) | {write:.0f} ms ({slow:.0f} ms) |
| MLflow: writes per trial | {writes:.1f} |
| MLflow: database | {mlflow:.0f} KiB per trial |
| a checkpoint, Conv4 with 32 filters | {conv4:.2f} MiB |
| a checkpoint, ResNet-12 with 64 filters | {resnet12:.0f} MiB |

The nodes, their workers and the driver share {cores} cores here, so times are longer than on a
dedicated head. CPU seconds are those of the driver, including its threads for MLflow and Ray.
"""


def drive(data_root: Path, storage: Path, nodes: int, trials: int) -> dict[str, Any]:
    """Run the sweep in this process, on the cluster at RAY_ADDRESS, and measure it."""
    from click.testing import CliRunner

    from sweeps.engine import run
    from sweeps.engine.command_line import _command
    from sweeps.engine.execution import placement
    from sweeps.engine.ledger.ledger import Ledger
    from sweeps.engine.tracking.runs import SweepRuns

    spent: list[tuple[float, float]] = []  # wall and CPU time at the end of every trial
    paused: list[float] = []
    writes: list[float] = []

    class Pausing(run.MetaTrainable):
        """Pauses instead of training, and returns simulated results."""

        def step(self) -> dict[str, Any]:
            """Advance to the next validation."""
            pause = PAUSE * random.uniform(0.5, 1.5)
            time.sleep(pause)
            self.seconds += pause
            before = getattr(self, "reports", [])
            reports = [*before, self._report(len(before) + 1)]
            done = len(reports) == STUDY.training.evaluations
            self.reports = [] if done else reports
            return {
                **self._facts(),
                "status": "complete" if done else "running",
                "done": done,
                "step": reports[-1]["step"],
                "metrics": reports[-1]["metrics"],
                "reports": reports,
                "peak_memory_bytes": self.predicted,
                "seconds_per_step": 1.0,
                "threads": 1,
            }

        def _report(self, count: int) -> dict[str, Any]:
            learner = self.run.learner
            accuracy = 1 / (1 + abs(learner.inner_lr - 0.3) + learner.ridge)
            names = ("val_accuracy", "val_interval", "val_loss", "cg_residual", "gradient_norm")
            step = count * self.run.iterations // STUDY.training.evaluations
            metrics = dict.fromkeys(names, accuracy)
            return {"step": step, "time": time.time(), "metrics": metrics}

    def described(node: dict[str, Any]) -> placement.Device:
        # Memory for one trial only, so that every trial gets its own GPU.
        del node
        return placement.Device(None, True, 1, 8000 * MIB, 1.0, 100 * MIB, 256 * MIB)

    original_report, original_sync = Ledger.report, SweepRuns.sync

    def reported(self: Ledger, *arguments: Any) -> Any:
        entry = original_report(self, *arguments)
        if entry.finished:
            spent.append((time.perf_counter(), time.process_time()))
            paused.append(entry.result["seconds"])
            if len(spent) % 16 == 0:
                seconds = time.perf_counter() - begun
                # The output of the sweep itself is captured.
                print(f"{len(spent)} trials, {seconds:.0f} s", file=sys.__stdout__, flush=True)
        return entry

    def synced(self: SweepRuns, *arguments: Any, **options: Any) -> None:
        at = time.perf_counter()
        original_sync(self, *arguments, **options)
        writes.append(time.perf_counter() - at)

    Ledger.report, SweepRuns.sync = reported, synced  # type: ignore[method-assign]
    run.MetaTrainable, placement._ask_node = Pausing, described  # type: ignore[misc]
    checks: list[float] = []
    check = run.check_nodes

    def checked(*arguments: Any) -> None:
        at = time.perf_counter()
        check(*arguments)
        checks.extend((time.perf_counter() - at, time.perf_counter(), time.process_time()))

    run.check_nodes = checked
    begun = time.perf_counter()
    words = ["--stage", "search", "--trials", trials, "--max-concurrent", nodes]
    places = ["--data-root", data_root, "--storage", storage]
    done = CliRunner().invoke(_command, [*map(str, (*words, *places))], obj=STUDY)
    if done.exit_code or len(spent) != trials:
        raise click.ClickException(f"the sweep failed:\n{done.output}")
    check_seconds, first_begin, first_cpu = checks
    cpus = [first_cpu, *(cpu for _, cpu in spent)]
    folder, part = storage / STUDY.sweep_name(0), trials // 4
    return {
        "trials": trials,
        "check": check_seconds,
        "busy": sum(paused),
        "span": spent[-1][0] - first_begin,
        "cpu": (cpus[-1] - cpus[0]) / trials,
        "part": part,
        "first": (cpus[part] - cpus[0]) / part,
        "last": (cpus[-1] - cpus[-1 - part]) / part,
        "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "journal": (folder / "journal.log").stat().st_size / 1024 / trials,
        "write": 1000 * fmean(writes),
        "slow": 1000 * quantiles(writes, n=10)[-1],
        "writes": len(writes) / trials,
        "mlflow": (storage / "mlflow.db").stat().st_size / 1024 / trials,
    }


def on_cluster(nodes: int, data_root: Path, trials: int) -> dict[str, Any]:
    """Start a cluster, run `drive` in another process, and return its measurements."""
    from ray.cluster_utils import Cluster

    size = {"object_store_memory": 80 * MIB}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **size})
    try:
        for count in range(nodes):
            cluster.add_node(num_cpus=1, num_gpus=1, **size)
            print(f"{count + 1} of {nodes} nodes", flush=True)
        with tempfile.TemporaryDirectory() as storage:
            words = [
                "--nodes",
                nodes,
                "--trials",
                trials,
                "--data-root",
                data_root,
                "--storage",
                storage,
            ]
            command = [sys.executable, __file__, *map(str, words)]
            environment = os.environ | {"RAY_ADDRESS": str(cluster.address)}
            subprocess.run(command, check=True, env=environment)
            row: dict[str, Any] = json.loads((Path(storage) / "measured.json").read_text())
    finally:
        cluster.shutdown()
    return row | {
        "nodes": nodes,
        "pause": PAUSE,
        "reports": STUDY.training.evaluations,
        "rate": trials * STUDY.training.evaluations / row["span"],
        "equal": 600 * trials / row["span"],
        "outside": 1 - row["busy"] / (row["span"] * nodes),
    }


def checkpoint_size(backbone: str, filters: int, data_root: Path) -> float:
    """Size in MiB of the checkpoint that a trial writes at each validation."""
    learner = LearnerConfig.model_validate({"backbone": backbone, "filters": filters})
    run = STUDY.model_copy(update={"learner": learner}).run_config({}, seed=0)
    trainer = MetaTrainer(run, data.load(STUDY.data.name, data_root), torch.device("cpu"))
    trainer.step()  # creates the optimiser's state
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trainer.pt"
        checkpoint.save(path, trainer)
        return path.stat().st_size / MIB


@click.command()
@data_root_option
@click.option("--nodes", type=click.IntRange(min=1), default=16, show_default=True)
@click.option("--trials", type=click.IntRange(min=4), default=STUDY.trials, show_default=True,
              help="Number of trials; the first and the last quarter are compared.")  # fmt: skip
@out_option
@click.option("--storage", type=click.Path(path_type=Path), hidden=True)
def main(data_root: Path, nodes: int, trials: int, out: Path, storage: Path | None) -> None:
    """Measure the driver, and write the results page."""
    data_root = data_root.resolve()
    if storage:
        measured = drive(data_root, storage, nodes, trials)
        (storage / "measured.json").write_text(json.dumps(measured))
        return
    commit = provenance.commit()  # before the output makes the work tree dirty
    data.prepare(STUDY.data.name, data_root)
    filters = {"conv4": 32, "resnet12": 64}
    sizes = {name: checkpoint_size(name, size, data_root) for name, size in filters.items()}
    row = on_cluster(nodes, data_root, trials) | sizes
    text = TEXT.format(
        command=f"python benchmarks/cluster_scale.py --nodes {nodes} --trials {trials}",
        hardware=provenance.hardware(torch.device("cpu")),
        commit=commit,
        cores=os.cpu_count(),
        **row,
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / "cluster_scale.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    run_command(main)
