"""The learner as a Ray Tune trainable: a step is training up to the next validation."""

import errno
import gc
import time
import traceback
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ray import tune

from memmeta import checkpoint, data, limits, provenance
from memmeta.config import RunConfig
from memmeta.errors import InputError
from memmeta.runtime import configure_process
from memmeta.training import DivergedError, MetaTrainer

STORAGE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE)
"""Of a disk that is full, or a file system that went away: nothing is wrong with the program."""


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
        self, config: dict[str, Any], data_root: Path, checkpoints: Path, cache: Path | None = None
    ) -> None:
        """Take note of the run; the first step begins it, where errors can be reported.

        Args:
            config: the Tune config, as `LedgerSearch.suggest` makes it.
            data_root: folder with the data sets.
            checkpoints: folder that every node sees.
            cache: folder of the data sets' caches; None: in the data root.
        """
        self.data_root = data_root
        self.cache = cache
        self.checkpoints = checkpoints
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
        if self.device.type == "cuda":
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
        except DivergedError as error:
            result = self._ended("diverged", str(error))
        except InputError as error:
            result = self._ended("failed", error.message)
        except Exception as error:
            if limits.is_out_of_memory(error):
                result = self._ended("out_of_memory", str(error) or type(error).__name__)
            elif isinstance(error, OSError) and error.errno in STORAGE_ERRORS:
                result = self._ended("failed", f"{error.strerror}: {self.checkpoints}")
            else:
                result = self._ended("failed", traceback.format_exc())
        self.seconds += time.monotonic() - begun
        return result | self._facts()

    def _advance(self) -> dict[str, Any]:
        trainer = self.trainer or self._begin()
        # One that was interrupted after its last checkpoint has nothing left to train.
        if not trainer.done:
            save = partial(checkpoint.save, self.checkpoint_file, trainer)
            trainer.train_to_evaluation(between_steps=checkpoint.now_and_then(save))
            save()
        metrics = _metrics(trainer, -1)
        if trainer.done and self.test:
            test = trainer.evaluate("test", self.run.training.test_tasks)
            name = self.run.data.metric.name
            metrics |= {f"test_{name}": test.value, "test_interval": test.interval}
        return {
            "status": "complete" if trainer.done else "running",
            "done": trainer.done,
            "metrics": metrics,
        }

    def _begin(self) -> MetaTrainer:
        """A new trainer, or the one that was interrupted."""
        self.threads = configure_process(threads=self.cpus)
        limits.cap(self.device, self.reserved, self.overhead)
        dataset = data.load(self.run.data.name, self.data_root, self.cache)
        trainer = MetaTrainer(self.run, dataset, self.device)
        if self.checkpoint_file.exists():
            try:
                checkpoint.resume(trainer, self.checkpoint_file)
                self.seconds = trainer.seconds
            except checkpoint.DamagedError as error:
                aside = checkpoint.set_aside(self.checkpoint_file)
                self.notes.append(f"{error.message}; now {aside.name}. The trial begins anew")
                trainer = MetaTrainer(self.run, dataset, self.device)
        self.trainer = trainer
        return trainer

    @property
    def checkpoint_file(self) -> Path:
        """Where this trial leaves its state."""
        return self.checkpoints / self.run.key / "trainer.pt"

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
