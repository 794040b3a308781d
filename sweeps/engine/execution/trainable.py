"""The learner as a Ray Tune trainable: a step is training up to the next validation."""

import errno
import gc
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ray import tune

from memmeta import checkpoint, data
from memmeta.config import RunConfig
from memmeta.data.dataset import Dataset
from memmeta.errors import InputError
from memmeta.memory import limits
from memmeta.system import provenance
from memmeta.system.runtime import configure_process
from memmeta.training import DivergedError, MetaTrainer
from sweeps.engine.ledger.folder import SweepFolder
from sweeps.engine.study.outcome import SAVED

STORAGE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE)
"""Of a disk that is full, or a file system that went away: nothing is wrong with the program."""


_BETWEEN_LOOKS = 1.0
"""Seconds after which a trial looks again whether it is to save itself."""


class _SavedError(Exception):
    """The trial has saved itself in mid-step, since the sweep is about to stop."""


class MetaTrainable(tune.Trainable):
    """Trains the `RunConfig` that its Tune config holds, as a dict, under "run".

    Every step leaves a checkpoint in a folder named by the run's key, a long one others on the way,
    and a trial starts from what it finds there: after a lost worker and after a lost driver alike.
    """

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """What `Placement.place` gave the trial."""
        return tune.PlacementGroupFactory([config["resources"]])

    def setup(
        self,
        config: dict[str, Any],
        data_root: Path,
        folder: SweepFolder,
        cache: Path | None = None,
    ) -> None:
        """Take note of the run; the first step begins it, where errors can be reported.

        Args:
            config: the Tune config, as `LedgerSearch.suggest` makes it.
            data_root: folder with the data sets.
            folder: of the sweep, which every node sees.
            cache: folder of the data sets' caches; None: in the data root.
        """
        self.data_root = data_root
        self.cache = cache
        self.folder = folder
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial: starting a process anew takes as long as many a trial.

        What the last trial left is let go, so that each finds the memory of a new process.
        """
        self.run = RunConfig.model_validate(new_config["run"])
        self.test: bool = new_config["test"]
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
        if self.device.type == "cuda":  # only on CUDA
            # On the CPU tensors are counted one by one, whatever the process holds besides.
            gc.collect()
            torch.cuda.empty_cache()
        return True

    def step(self) -> dict[str, Any]:
        """Train to the next validation. What goes wrong in the learner is reported, not raised.

        Ray would run a trial that raises again, which suits lost machines alone.
        """
        begun = time.monotonic()
        try:
            result = self._advance()
        except _SavedError:
            result = {"status": SAVED, "done": False, "metrics": {}}
        except DivergedError as error:
            result = self._ended("diverged", str(error))
        except InputError as error:
            result = self._ended("failed", error.message)
        except Exception as error:
            if limits.is_out_of_memory(error):
                result = self._ended("out_of_memory", str(error) or type(error).__name__)
            elif isinstance(error, OSError) and error.errno in STORAGE_ERRORS:
                result = self._ended("failed", f"{error.strerror}: {self.folder.path}")
            else:
                result = self._ended("failed", traceback.format_exc())
        self.seconds += time.monotonic() - begun
        return result | self._facts()

    def _advance(self) -> dict[str, Any]:
        trainer = self.trainer or self._begin()
        # One that was interrupted after its last checkpoint has nothing left to train.
        if not trainer.done:
            trainer.train_to_evaluation(between_steps=self._between_steps(trainer))
            self._save(trainer)
        metrics = _metrics(trainer, -1)
        if trainer.done and self.test:
            test = trainer.evaluate("test", self.run.training.test_tasks)
            name = self.run.data.metric.name
            metrics |= {f"test_{name}": test.value, "test_interval": test.interval}
        status = "complete" if trainer.done else "running"
        result = {"status": status, "done": trainer.done, "metrics": metrics}
        if trainer.done and trainer.note:
            result["message"] = trainer.note
        return result

    def _save(self, trainer: MetaTrainer) -> None:
        path, below = self.checkpoint_file, self.folder.checkpoints
        self.folder.steadily(partial(checkpoint.save, path, trainer, below))

    def _between_steps(self, trainer: MetaTrainer) -> Callable[[], None]:
        """Saves the trial now and then, and when the sweep is about to stop."""
        save = partial(self._save, trainer)
        save_now_and_then = checkpoint.now_and_then(save)

        def stop_if_asked() -> None:
            if self.folder.asks_to_save():
                save()
                raise _SavedError

        look_now_and_then = checkpoint.now_and_then(stop_if_asked, _BETWEEN_LOOKS)

        def between_steps() -> None:
            save_now_and_then()
            look_now_and_then()

        return between_steps

    def _begin(self) -> MetaTrainer:
        """A new trainer, or the one that was interrupted."""
        self.threads = configure_process(threads=self.cpus)
        limits.cap(self.device, self.reserved, self.overhead)
        dataset = data.load(self.run.data.name, self.data_root, self.cache)
        trainer = self.folder.steadily(partial(self._resumed, dataset))
        self.trainer = trainer
        return trainer

    def _resumed(self, dataset: Dataset) -> MetaTrainer:
        trainer = MetaTrainer(self.run, dataset, self.device)
        if not self.checkpoint_file.exists():
            return trainer
        try:
            checkpoint.resume(trainer, self.checkpoint_file)
            self.seconds = trainer.seconds
        except checkpoint.DamagedError as error:
            aside = checkpoint.set_aside(self.checkpoint_file)
            self.notes.append(f"{error.message}; now {aside.name}. The trial begins anew")
            return MetaTrainer(self.run, dataset, self.device)
        except InputError as error:
            if isinstance(error.__context__, OSError) and not self.folder.is_here():
                raise error.__context__ from None
            raise
        return trainer

    @property
    def checkpoint_file(self) -> Path:
        """Where this trial leaves its state."""
        return self.folder.checkpoints / self.run.key / "trainer.pt"

    def _ended(self, status: str, message: str) -> dict[str, Any]:
        return {"status": status, "done": True, "message": message, "metrics": {}}

    def _facts(self) -> dict[str, Any]:
        trainer = self.trainer
        return {
            "step": trainer.iteration if trainer else 0,
            "reports": _reports(trainer) if trainer else [],
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


def _metrics(trainer: MetaTrainer, index: int) -> dict[str, float]:
    report = trainer.reports[index]
    key = trainer.config.data.metric.key
    return {key: report.val.value, "val_interval": report.val.interval, **report.diagnostics}


def _reports(trainer: MetaTrainer) -> list[dict[str, Any]]:
    """All validations so far, also those of which the driver did not hear before it was lost."""
    return [
        {"step": report.iteration, "time": report.time, "metrics": _metrics(trainer, index)}
        for index, report in enumerate(trainer.reports)
    ]
