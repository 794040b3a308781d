"""Training a run from Python: `train` and `train_run`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from memmeta import checkpoint as checkpoints
from memmeta import data as data_sets
from memmeta.config import LearnerConfig, RunConfig, parse
from memmeta.data.dataset import AnyDataset, Dataset
from memmeta.errors import FailedError, InputError, cannot_write
from memmeta.progress import AnyProgress, NoProgress, Progress, progress_here
from memmeta.run import Run
from memmeta.settings.arguments import AnyPath, checked
from memmeta.system.devices import AnyDevice, chosen_device
from memmeta.system.runtime import deterministic
from memmeta.system.stopping import postponed
from memmeta.training import MetaTrainer


@checked
def train(
    learner: LearnerConfig,
    data: AnyDataset,
    *,
    tasks: int | None = None,
    iterations: int | None = None,
    seed: int = 0,
    ways: int | None = None,
    train_ways: int | None = None,
    shots: int | None = None,
    queries: int | None = None,
    eval_queries: int | None = None,
    rotations: bool | None = None,
    evaluations: int | None = None,
    val_tasks: int | None = None,
    device: AnyDevice = None,
    progress: AnyProgress = True,
    checkpoint: AnyPath | None = None,
) -> Run:
    """Meta-train a learner on a data set.

    Args:
        learner: the network, the algorithm and their settings.
        data: the data set, from `load_dataset`.
        tasks: training tasks in all; give this or `iterations`.
        iterations: outer steps of `learner.task_batch` tasks each.
        seed: determines the initial weights and the training tasks.
        ways: classes per task; None: 5, and 1 for regression.
        train_ways: classes per training task; None: `ways`.
        shots: support images per class; None: 5.
        queries: query images per class in training; None: 5.
        eval_queries: query images per class in validation and test; None: 15.
        rotations: see `DataConfig.rotations`.
        evaluations: validations during the run, the last one at its end; None: 4.
        val_tasks: validation tasks; None: 200.
        device: where to train; None: a GPU if there is one.
        progress: whether to show a bar, on a terminal and in a notebook; or the display to use.
        checkpoint: see `train_run`.

    Returns:
        The trained run.

    Raises:
        InputError: a setting is not accepted, or the data are too few for the tasks.
        DivergedError: a number in training is not finite.
        FailedError: the checkpoint cannot be written.

    Examples:
        Regression of sine waves, which needs no files:

        >>> import memmeta as mm
        >>> waves = mm.load_dataset("sinusoid")
        >>> learner = mm.LearnerConfig(backbone="mlp", inner_steps=5)
        >>> run = mm.train(learner, waves, tasks=80, val_tasks=20)
        >>> run.config.iterations
        10
        >>> run.evaluate("test", tasks=20).tasks
        20
    """
    episodes = {
        **_own_shape(data),
        "name": data.name,
        "ways": ways,
        "train_ways": train_ways,
        "shots": shots,
        "queries": queries,
        "eval_queries": eval_queries,
        "rotations": rotations,
    }
    budget = {
        "tasks": tasks,
        "iterations": iterations,
        "evaluations": evaluations,
        "val_tasks": val_tasks,
    }
    if ways is None and len(data.input_shape) == 1:
        episodes["ways"] = 1
    values = {
        "data": _given(episodes),
        "learner": learner,
        "training": _given(budget),
        "seed": seed,
    }
    config = parse(RunConfig, values, "train")
    return train_run(config, data, device=device, progress=progress, checkpoint=checkpoint)


@checked
def train_run(
    config: RunConfig,
    data: AnyDataset,
    *,
    device: AnyDevice = None,
    progress: AnyProgress = True,
    checkpoint: AnyPath | None = None,
) -> Run:
    """Train a run of which everything is given, such as a run of `best.yaml`.

    One thread at a time can train in a process; others wait.

    Args:
        config: all settings of the run.
        data: the data set that `config.data.name` names.
        device: see `train`.
        progress: see `train`.
        checkpoint: a file to which the run is saved after every validation, and every five minutes.
            If it exists, the run continues from it. None: the run is not saved.

    Returns:
        The trained run.

    Raises:
        InputError: as `train`; or the checkpoint is damaged, or of another run or data set.
        DivergedError: a number in training is not finite.
        FailedError: the checkpoint cannot be written.

    Examples:
        >>> import memmeta as mm
        >>> config = mm.RunConfig(
        ...     data=mm.DataConfig(name="sinusoid", ways=1),
        ...     learner=mm.LearnerConfig(backbone="mlp", inner_steps=5),
        ...     training=mm.TrainingConfig(iterations=10, val_tasks=20),
        ... )
        >>> run = train_run(config, mm.load_dataset("sinusoid"), checkpoint="waves.pt")
        >>> [report.iteration for report in run.reports]
        [2, 5, 8, 10]
    """
    if data.name != config.data.name:
        raise InputError(f"data: {config.data.name} is expected, got {data.name}")
    show = progress_here() if progress is True else (progress or NoProgress())
    path = None if checkpoint is None else Path(checkpoint)
    with deterministic():
        trainer = MetaTrainer(config, data, chosen_device(device))
        if path is not None and path.exists():
            checkpoints.resume(trainer, path)
            show.line(f"continuing from {path}, step {trainer.iteration}")
        if path is not None and not trainer.done:
            checkpoints.check_writable(path)
        train_to_end(trainer, show, lambda: _save(trainer, path))
        return Run(checkpoints.snapshot(trainer), data=data, device=trainer.device)


def train_to_end(
    trainer: MetaTrainer, progress: Progress, save: Callable[[], None] = lambda: None
) -> None:
    """Train to the end of the budget, with a progress bar and a line per validation.

    In a process that called `stopping.heed_signals`, a signal lets the current step or validation
    end; then the run is saved, and stops.

    Args:
        trainer: a new trainer, or one that continues.
        progress: shows the progress.
        save: called after every validation, before its line, and from time to time in between.

    Raises:
        DivergedError: see `MetaTrainer.step`.
        KeyboardInterrupt: a signal asked the process to stop.
    """
    metric = trainer.config.data.metric
    throttled_save = checkpoints.throttled(save)
    if not trainer.done:
        trainer.compute_features(progress)
    bar = progress.bar(trainer.config.iterations, trainer.iteration)
    with bar as advance, postponed() as stop:

        def between_steps() -> None:
            if stop.requested:
                save()
                raise KeyboardInterrupt
            throttled_save()

        while not trainer.done:
            report = trainer.train_to_evaluation(on_step=advance, between_steps=between_steps)
            save()
            line = (
                f"step {report.iteration:>6}   "
                f"val {metric.title} {metric.text(report.val.value, report.val.interval)}"
            )
            if "query_loss" in report.diagnostics:
                line += f"   query loss {report.diagnostics['query_loss']:.3f}"
            progress.line(line)
            if stop.requested and not trainer.done:
                raise KeyboardInterrupt


def _save(trainer: MetaTrainer, path: Path | None) -> None:
    if path is None:
        return
    try:
        checkpoints.save(path, trainer)
    except OSError as error:
        message = f"{cannot_write(path, error).message}; to continue, start the run again"
        raise FailedError(message) from None


def _own_shape(data: Dataset) -> dict[str, Any]:
    """The fields of `DataConfig` for the shape of own images; empty for other data."""
    if data_sets.is_registered(data.name) or len(data.input_shape) != 3:
        return {}
    channels, height, _ = data.input_shape
    return {"image_size": height, "channels": channels}


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
