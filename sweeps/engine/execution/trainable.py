"""The learner as a Ray Tune trainable. A step trains until the next validation."""

import gc
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from ray import tune

from memmeta import checkpoint, data
from memmeta.config import RunConfig, parse
from memmeta.data.converted import converted
from memmeta.data.dataset import Dataset
from memmeta.errors import DivergedError, InputError
from memmeta.memory import limits
from memmeta.system import provenance
from memmeta.system.runtime import configure_process
from memmeta.training import MetaTrainer
from sweeps.engine.execution.own_code import NO_OWN_CODE, OwnCode
from sweeps.engine.ledger.folder import STORAGE_ERRORS, SweepFolder
from sweeps.engine.study.outcome import Status
from sweeps.engine.study.result import TrialResult, Validation, score_keys

SAVED = "saved"
"""Reported instead of a result by a trial that saved itself because the sweep is about to stop."""

_SAVE_CHECK_SECONDS = 1.0
"""Interval at which a trial checks whether it should save itself."""


class _SavedError(Exception):
    """The trial has saved itself in the middle of a step, because the sweep is about to stop."""


class _StepOutcome(NamedTuple):
    """How a step ended."""

    status: Status
    metrics: dict[str, float]
    message: str | None = None


class MetaTrainable(tune.Trainable):
    """Trains the `RunConfig` in its Tune config, under the key "run", as a dict.

    A checkpoint is saved after every step, and also during long steps. It is in a folder named by
    the run's key. A trial resumes from its checkpoint if there is one, so it continues after the
    worker or the driver was lost.
    """

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """The resources that `Placement.allocate` gave the trial."""
        return tune.PlacementGroupFactory([config["resources"]])

    def setup(  # type: ignore[override]  # the parameters come from `tune.with_parameters`
        self,
        config: dict[str, Any],
        data_root: Path,
        folder: SweepFolder,
        cache: Path | None = None,
        code: OwnCode = NO_OWN_CODE,
    ) -> None:
        """Prepare the first trial. Errors can be reported in `step` only, so training starts there.

        Args:
            config: the Tune config from `LedgerSearch.suggest`.
            data_root: folder with the data sets.
            folder: folder of the sweep, on storage that all nodes share.
            cache: folder for prepared data; None: `cache` in the data root.
            code: code of users that the config may name.
        """
        code.make_importable()
        self.code_digest = code.digest
        self.data_root = data_root
        self.cache = cache
        self.folder = folder
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Prepare the next trial in this process, because starting a process takes seconds.

        Memory of the last trial is freed, so that each trial has as much as in a new process.
        """
        self.problem = ""
        try:
            self.run = parse(RunConfig, new_config["run"], "config")
        except InputError as error:
            # Code of users that the driver could import, and this worker cannot.
            self.problem = error.message
        self.test: bool = new_config["test"]
        self.evaluate_on: tuple[str, ...] = new_config["evaluate_on"]
        self.predicted: int = new_config["predicted"]
        self.reserved: int = new_config["reserved"]
        self.overhead: int = new_config["overhead"]
        resources = new_config["resources"]
        self.cpus = int(resources["CPU"])
        self.gpus = float(resources.get("GPU", 0))
        on_gpu = "GPU" in resources and torch.cuda.is_available()
        self.device = torch.device("cuda" if on_gpu else "cpu")
        self.trainer: MetaTrainer | None = None
        self.seconds = 0.0
        self.notes: list[str] = []
        self.other_digests: dict[str, str] = {}
        if self.device.type == "cuda":  # only on CUDA
            # Not needed on the CPU, where the memory of each tensor is counted.
            gc.collect()
            torch.cuda.empty_cache()
        return True

    def step(self) -> dict[str, Any]:
        """Train until the next validation.

        Errors of the learner are reported in the result. If they were raised, Ray would start the
        trial again.
        """
        started = time.monotonic()
        try:
            outcome = self._advance()
        except _SavedError:
            self.seconds += time.monotonic() - started
            return {"status": SAVED, "done": False}
        except DivergedError as error:
            outcome = _StepOutcome("diverged", {}, str(error))
        except InputError as error:
            outcome = _StepOutcome("failed", {}, error.message)
        except Exception as error:
            if limits.is_out_of_memory(error):
                message = str(error) or type(error).__name__
                outcome = _StepOutcome("out_of_memory", {}, message)
            elif isinstance(error, OSError) and error.errno in STORAGE_ERRORS:
                outcome = _StepOutcome("failed", {}, f"{error.strerror}: {self.folder.path}")
            else:
                outcome = _StepOutcome("failed", {}, traceback.format_exc())
        self.seconds += time.monotonic() - started
        return self._report(outcome)

    def failed(self, message: str) -> dict[str, Any]:
        """The report of a trial that failed before its first step."""
        return self._report(_StepOutcome("failed", {}, message))

    def _advance(self) -> _StepOutcome:
        if self.problem:
            raise InputError(self.problem)
        trainer = self.trainer or self._begin()
        # A trial that was interrupted after its last checkpoint has nothing left to train.
        if not trainer.done:
            trainer.train_to_evaluation(between_steps=self._between_steps(trainer))
            self._save(trainer)
        metrics = _metrics(trainer, -1)
        if not trainer.done:
            return _StepOutcome("running", metrics)
        if self.test:
            metrics |= self._scored(trainer)
            for name in self.evaluate_on:
                metrics |= self._scored_on(name, trainer)
        return _StepOutcome("complete", metrics, trainer.note or None)

    def _scored(
        self, trainer: MetaTrainer, other: str | None = None, dataset: Dataset | None = None
    ) -> dict[str, float]:
        """Metrics on test tasks: of the data set of training, or of another one."""
        score = trainer.evaluate("test", self.run.training.test_tasks, dataset)
        value, interval = score_keys(self.run.data.metric, other)
        return {value: score.value, interval: score.interval}

    def _scored_on(self, name: str, trainer: MetaTrainer) -> dict[str, float]:
        """Metrics on test tasks of another data set; empty if they are not finite."""
        dataset = data.load(name, self.data_root, self.cache)
        self.other_digests[name] = dataset.digest
        try:
            return self._scored(trainer, name, converted(dataset, trainer.dataset))
        except DivergedError:
            self.notes.append(f"scores on {name} are not finite")
            return {}

    def _save(self, trainer: MetaTrainer) -> None:
        path, below = self.checkpoint_file, self.folder.checkpoints
        self.folder.when_available(partial(checkpoint.save, path, trainer, below))

    def _between_steps(self, trainer: MetaTrainer) -> Callable[[], None]:
        """A function that saves the trial periodically, and when the sweep is about to stop."""
        save = partial(self._save, trainer)
        throttled_save = checkpoint.throttled(save)

        def stop_if_asked() -> None:
            if self.folder.asks_to_save():
                save()
                raise _SavedError

        throttled_check = checkpoint.throttled(stop_if_asked, _SAVE_CHECK_SECONDS)

        def between_steps() -> None:
            throttled_save()
            throttled_check()

        return between_steps

    def _begin(self) -> MetaTrainer:
        """Make a trainer, and restore its state if there is a checkpoint."""
        self.threads = configure_process(threads=self.cpus)
        limits.cap(self.device, self.reserved, self.overhead)
        dataset = self.run.data.load(self.data_root, self.cache)
        trainer = self.folder.when_available(partial(self._resumed, dataset))
        self.trainer = trainer
        return trainer

    def _resumed(self, dataset: Dataset) -> MetaTrainer:
        trainer = MetaTrainer(self.run, dataset, self.device)
        if not self.checkpoint_file.exists():
            return trainer
        try:
            checkpoint.resume(trainer, self.checkpoint_file)
            self.seconds = trainer.seconds
        except (checkpoint.DamagedError, checkpoint.OtherRunError) as error:
            aside = checkpoint.set_aside(self.checkpoint_file)
            self.notes.append(f"{error.message}; renamed to {aside.name}. The trial starts over")
            return MetaTrainer(self.run, dataset, self.device)
        except InputError as error:
            if isinstance(error.__context__, OSError) and not self.folder.is_here():
                raise error.__context__ from None
            raise
        return trainer

    @property
    def checkpoint_file(self) -> Path:
        """The trial's checkpoint."""
        return self.folder.checkpoint(self.run.key)

    def _report(self, outcome: _StepOutcome) -> dict[str, Any]:
        """The result of the trial so far, as Tune takes it."""
        trainer = self.trainer
        result: TrialResult = {
            "status": outcome.status,
            "step": trainer.iteration if trainer else 0,
            "metrics": outcome.metrics,
            "reports": _validations(trainer) if trainer else [],
            "peak_memory_bytes": trainer.peak_memory if trainer else None,
            "predicted_memory_bytes": self.predicted,
            "reserved_memory_bytes": self.reserved,
            "seconds_per_step": trainer.seconds_per_step if trainer else None,
            "seconds": self.seconds,
            "commit": provenance.commit(),
            "hardware": provenance.hardware(self.device),
            "threads": torch.get_num_threads(),
            "gpus": self.gpus,
            "data_digest": trainer.dataset.digest if trainer else None,
            "notes": self.notes,
        }
        if self.other_digests:
            result["other_digests"] = self.other_digests
        if self.code_digest is not None:
            result["code"] = self.code_digest
        if outcome.message is not None:
            result["message"] = outcome.message
        return {**result, "done": outcome.status != "running"}


def _metrics(trainer: MetaTrainer, index: int) -> dict[str, float]:
    report = trainer.reports[index]
    key = trainer.config.data.metric.key
    return {key: report.val.value, "val_interval": report.val.interval, **report.diagnostics}


def _validations(trainer: MetaTrainer) -> list[Validation]:
    """All validations so far. A lost driver may not have received the earlier ones."""
    return [
        {"step": report.iteration, "time": report.time, "metrics": _metrics(trainer, index)}
        for index, report in enumerate(trainer.reports)
    ]
