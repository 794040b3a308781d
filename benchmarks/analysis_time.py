"""Time and memory of the analysis commands on sweeps with many trials.

    python benchmarks/analysis_time.py

creates stores of sweeps with simulated trials, runs the commands on them, and writes
docs/analysis_time.md.
"""

import math
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import torch

from memmeta.config import DataConfig, TrainingConfig
from memmeta.system import provenance
from memmeta.system.units import MIB
from shared import out_option
from sweeps.engine.ledger.ledger import Ledger
from sweeps.engine.ledger.schedule import quotas
from sweeps.engine.stores.store import default_uri
from sweeps.engine.study import Study, design
from sweeps.engine.study.outcome import Stage
from sweeps.engine.tracking.tracker import Tracker

STUDY = Study(
    name="many",
    data=DataConfig(name="glyphs", shots=1),
    training=TrainingConfig(iterations=100, evaluations=2),
)

COMMANDS = {
    "trials": ["trials", STUDY.name],
    "report": ["report", STUDY.name, "--out", "report"],
    "report --trials-csv": ["report", "--trials-csv", "report/trials.csv", "--out", "again"],
    "export": ["export", STUDY.name, "--out", "best.yaml"],
}

TEXT = """\
# Time and memory of the analysis of many trials

`{command}` on {hardware}, commit {commit}.

Sweeps of stages explore, search and confirm in the default space of six dimensions, as the engine
writes them to MLflow on SQLite. The trials are simulated: accuracy is a smooth function of how far
the inner loop moves, with noise, and one trial in twenty diverges. CPU time, wall time and peak
resident set are those of the whole command, from the start of Python to its end.

| trials | command | CPU | wall time | peak resident set |
|---|---|---|---|---|
{rows}
"""


def make_store(folder: Path, trials: int) -> None:
    """Write the MLflow store of a sweep with this number of trials."""
    name = STUDY.sweep_name(0)
    (folder / name).mkdir()
    ledger = Ledger(STUDY, 0, folder / name)
    tracker = Tracker(ledger, name, default_uri(folder), STUDY.name, folder / "artifacts")
    best = design.sobol_point(STUDY, 0, 0)
    point = 0
    for stage, quota in quotas(STUDY, "all", trials).items():
        for index in range(quota):
            params = best if stage == "confirm" else design.sobol_point(STUDY, 0, point)
            seed = 1 + index if stage == "confirm" else 0
            ticket = ledger.begin(stage, index, params, seed)
            tracker.send(ledger.report(ticket, simulated(stage, point, params)))
            point += 1
    problem = tracker.close(ledger.entries(), True, {})
    assert problem is None, problem


def simulated(stage: Stage, point: int, params: dict[str, Any]) -> dict[str, Any]:
    """The result of a simulated trial."""
    chance = random.Random(point)
    moved = math.log(params["inner_lr"] * params["inner_steps"])
    accuracy = 0.3 + 0.4 * math.exp(-(((moved - 1) / 2) ** 2)) + chance.gauss(0, 0.02)
    reports = [
        {"step": step, "time": step, "metrics": {"val_accuracy": value, "val_interval": 0.02}}
        for step, value in ((50, accuracy - 0.1), (100, accuracy))
    ]
    final = dict(reports[-1]["metrics"])
    if stage == "confirm":
        final |= {"test_accuracy": accuracy - 0.05, "test_interval": 0.01}
    return {
        "status": "diverged" if stage != "confirm" and chance.random() < 0.05 else "complete",
        "step": 100,
        "metrics": final,
        "reports": reports,
        "peak_memory_bytes": round(params["task_batch"] * 10 * MIB),
        "predicted_memory_bytes": round(params["task_batch"] * 10 * MIB),
        "seconds_per_step": 0.01 * params["task_batch"] * chance.uniform(0.9, 1.1),
        "seconds": 10.0,
        "commit": "0f3c",
        "hardware": "none",
        "threads": 1,
        "gpus": 0,
        "data_digest": "9e1d",
    }


def measure(folder: Path, words: list[str]) -> tuple[float, float, float]:
    """CPU seconds, wall seconds and peak resident set in MiB of a command."""
    command = [sys.executable, "-m", "analysis", *words]
    environment = os.environ | {"MEMMETA_STORAGE": "."}
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    begun = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, words
    seconds = usage.ru_utime + usage.ru_stime
    return seconds, time.perf_counter() - begun, usage.ru_maxrss / 1024


@click.command()
@click.option(
    "--trials", type=click.IntRange(min=12), multiple=True, default=(125, 500, 2000),
    show_default=True, help="Number of trials of a sweep; can be repeated.",
)  # fmt: skip
@out_option
def main(trials: tuple[int, ...], out: Path) -> None:
    """Create the stores, run the commands and write the results page."""
    commit = provenance.commit()  # before the output makes the work tree dirty
    rows = []
    for number in trials:
        with tempfile.TemporaryDirectory() as name:
            make_store(Path(name), number)
            for title, words in COMMANDS.items():
                cpu, wall, peak = measure(Path(name), words)
                row = f"| {number} | `{title}` | {cpu:.1f} s | {wall:.1f} s | {peak:.0f} MiB |"
                rows.append(row)
                print(row, flush=True)
    text = TEXT.format(
        command="python benchmarks/analysis_time.py" + "".join(f" --trials {n}" for n in trials),
        hardware=provenance.hardware(torch.device("cpu")),
        commit=commit,
        rows="\n".join(rows),
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / "analysis_time.md").write_text(text, encoding="utf-8")
    print(f"wrote {out / 'analysis_time.md'}")


if __name__ == "__main__":
    main()
