"""The overhead of a sweep, compared with plain Ray Tune on the same trainable.

    python benchmarks/sweep_overhead.py

runs the same study twice, one after the other, each as a separate command: with memmeta's engine,
and with Tune's stock Optuna search and MLflow logger. Writes docs/sweep_overhead.md.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean, quantiles
from typing import Any

import click
import torch

from memmeta import data
from memmeta.command_line import data_root_option, run_command
from memmeta.config import DataConfig, LearnerConfig, TrainingConfig
from memmeta.system import provenance
from shared import out_option
from sweeps.engine.ledger.folder import SweepFolder
from sweeps.engine.study import Study

STUDY = Study(
    name="overhead",
    data=DataConfig(name="glyphs", shots=1),
    learner=LearnerConfig(filters=32),
    # About five seconds on one core.
    training=TrainingConfig(tasks=300, evaluations=2, val_tasks=60),
    trials=64,
)

TEXT = """\
# The overhead of a sweep

`{command}` on {hardware}, commit {commit}.

{trials} trials of the study in the script, {slots} at a time, one CPU each. Every trial sees the
same number of tasks. Wall time covers the whole command, from the start of Python to its end,
including the start of Ray and its workers. "Outside trials" is the share of it in which the CPUs
ran no trial: 1 − (sum of the trials' seconds) / (wall time × {slots}).

| | wall time | per trial, mean (10 % to 90 %) | outside trials |
|---|---|---|---|
{rows}

Plain Ray Tune is `OptunaSearch`, `MLflowLoggerCallback` on SQLite and one process per trial, its
defaults, on the same trainable. It keeps no record from which an interrupted sweep could
continue.
"""


def slots() -> int:
    """Number of trials at once: one per CPU."""
    return os.cpu_count() or 1


def run_ours(data_root: Path, storage: Path, trials: int) -> list[float]:
    """Sweep with memmeta's engine; return the seconds of each trial."""
    from click.testing import CliRunner

    from sweeps.engine.command_line import _command
    from sweeps.engine.ledger.ledger import Ledger

    options = ["--stage", "search", "--trials", trials]
    places = ["--data-root", data_root, "--storage", storage]
    done = CliRunner().invoke(_command, [*map(str, (*options, *places))], obj=STUDY)
    if done.exit_code:
        raise click.ClickException(f"the sweep failed:\n{done.output}")
    ledger = Ledger(STUDY, 0, storage / STUDY.sweep_name(0), stages=("search",))
    return [entry.result["seconds"] for entry in ledger.finished() if entry.result]


def run_plain(data_root: Path, storage: Path, trials: int) -> list[float]:
    """Sweep with Tune's stock components; return the seconds of each trial."""
    import ray
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback
    from ray.tune.search.optuna import OptunaSearch

    from sweeps.engine.execution.trainable import MetaTrainable
    from sweeps.engine.run import quietly

    class Plain(MetaTrainable):
        """A trainable whose Tune config is the params of a point."""

        @classmethod
        def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
            """One CPU."""
            del config
            return tune.PlacementGroupFactory([{"CPU": 1}])

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            """Supply the config that the engine would supply."""
            memory = {"predicted": 0, "reserved": 2**40, "overhead": 0}
            run = STUDY.run_config(new_config, seed=0).model_dump()
            return super().reset_config(
                {"run": run, "test": False, "resources": {"CPU": 1}, **memory}
            )

    ray.init(log_to_driver=False, logging_level="ERROR", include_dashboard=False)
    uri = f"sqlite:///{storage}/mlflow.db"
    folder = SweepFolder.claimed(storage)
    trainable = tune.with_parameters(Plain, data_root=data_root, folder=folder)
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=OptunaSearch(
                dict(STUDY.space), metric=f"metrics/{STUDY.data.metric.key}", mode="max"
            ),
            num_samples=trials,
            max_concurrent_trials=slots(),
        ),
        run_config=tune.RunConfig(
            storage_path=str(storage),
            callbacks=[MLflowLoggerCallback(uri, experiment_name=STUDY.name)],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    )
    with quietly():
        results = tuner.fit()
    ray.shutdown()
    return [result.metrics["seconds"] for result in results if result.metrics]


ENGINES = {"ours": run_ours, "plain": run_plain}
TITLES = {"ours": "memmeta", "plain": "plain Ray Tune"}


def measure(engine: str, data_root: Path, trials: int) -> dict[str, Any]:
    """Run the sweep with one engine as a separate command, and measure it."""
    with tempfile.TemporaryDirectory() as storage:
        words = ["--engine", engine, "--trials", trials]
        words += ["--data-root", data_root, "--storage", storage]
        begun = time.perf_counter()
        subprocess.run([sys.executable, __file__, *map(str, words)], check=True)
        wall = time.perf_counter() - begun
        seconds = json.loads((Path(storage) / "seconds.json").read_text())
    low, *_, high = quantiles(seconds, n=10)
    return {
        "engine": TITLES[engine],
        "trials": len(seconds),
        "wall": wall,
        "mean": fmean(seconds),
        "low": low,
        "high": high,
        "outside": 1 - sum(seconds) / (wall * slots()),
    }


@click.command()
@data_root_option
@click.option("--trials", type=click.IntRange(min=2), default=STUDY.trials, show_default=True)
@out_option
@click.option("--engine", type=click.Choice(sorted(ENGINES)), hidden=True)
@click.option("--storage", type=click.Path(path_type=Path), hidden=True)
def main(data_root: Path, trials: int, out: Path, engine: str | None, storage: Path) -> None:
    """Measure both engines, and write the results page."""
    data_root = data_root.resolve()
    if engine:
        seconds = ENGINES[engine](data_root, storage, trials)
        (storage / "seconds.json").write_text(json.dumps(seconds))
        return
    commit = provenance.commit()  # before the output makes the work tree dirty
    data.prepare(STUDY.data.name, data_root)
    rows = []
    for name in ENGINES:
        row = measure(name, data_root, trials)
        rows.append(
            "| {engine} | {wall:.0f} s | {mean:.1f} s ({low:.1f} to {high:.1f}) "
            "| {outside:.1%} |".format(**row)
        )
        print(rows[-1])
    text = TEXT.format(
        command=f"python benchmarks/sweep_overhead.py --trials {trials}",
        hardware=provenance.hardware(torch.device("cpu")),
        commit=commit,
        trials=trials,
        slots=slots(),
        rows="\n".join(rows),
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / "sweep_overhead.md").write_text(text, encoding="utf-8")
    print(f"wrote {out / 'sweep_overhead.md'}")


if __name__ == "__main__":
    run_command(main)
