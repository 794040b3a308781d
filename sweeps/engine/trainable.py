"""The learner as a Ray Tune trainable: a step is training up to the next validation."""

import traceback
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune

from memmeta import checkpoint, data, provenance
from memmeta.config import RunConfig
from memmeta.runtime import configure_process
from memmeta.training import DivergedError, MetaTrainer


class MetaTrainable(tune.Trainable):
    """Trains the `RunConfig` that its Tune config holds, as a dict, under "run".

    Every step leaves a checkpoint in a folder named by the run's key, and a trial starts from
    what it finds there: after a lost worker and after a lost driver alike.
    """

    def setup(self, config: dict[str, Any], data_root: Path, checkpoints: Path) -> None:
        """Take note of the run; the first step begins it, where errors can be reported.

        Args:
            config: the Tune config.
            data_root: folder with the data sets.
            checkpoints: folder that every node sees.
        """
        self.run = RunConfig.model_validate(config["run"])
        self.data_root = data_root
        self.checkpoint_folder = checkpoints / self.run.key
        self.trainer: MetaTrainer | None = None
        resources = ray.get_runtime_context().get_assigned_resources()
        self.device = torch.device("cuda" if resources.get("GPU") else "cpu")
        self.threads = configure_process(threads=max(1, int(resources.get("CPU", 1))))

    def step(self) -> dict[str, Any]:
        """Train to the next validation. What goes wrong in the learner is reported, not raised.

        Ray would run a trial that raises again, which suits lost machines alone.
        """
        try:
            result = self._advance()
        except DivergedError as error:
            result = self._ended("diverged", str(error))
        except torch.OutOfMemoryError as error:
            result = self._ended("out_of_memory", str(error))
        except Exception:
            result = self._ended("failed", traceback.format_exc())
        return result | self._facts()

    def _begin(self) -> MetaTrainer:
        """A new trainer, or the one that was interrupted."""
        dataset = data.load(self.run.data.name, self.data_root)
        self.trainer = MetaTrainer(self.run, dataset, self.device)
        if (self.checkpoint_folder / "trainer.pt").exists():
            self.load_checkpoint(str(self.checkpoint_folder))
        return self.trainer

    def _advance(self) -> dict[str, Any]:
        trainer = self.trainer or self._begin()
        if trainer.done:
            # Interrupted after its last checkpoint and before the driver heard of it.
            diagnostics = {}
            val = trainer.evaluate("val", trainer.config.training.val_tasks)
        else:
            _, diagnostics, val = trainer.train_to_evaluation()
            self.save_checkpoint(str(self.checkpoint_folder))
        return {
            "status": "complete" if trainer.done else "running",
            "done": trainer.done,
            "metrics": {
                self.run.data.metric.key: val.value,
                "val_interval": val.interval,
                **diagnostics,
            },
        }

    def _ended(self, status: str, message: str) -> dict[str, Any]:
        return {"status": status, "done": True, "message": message, "metrics": {}}

    def _facts(self) -> dict[str, Any]:
        trainer = self.trainer
        return {
            "step": trainer.iteration if trainer else 0,
            "peak_memory_bytes": trainer.peak_memory if trainer else None,
            "seconds_per_step": trainer.seconds_per_step if trainer else None,
            "commit": provenance.commit(),
            "hardware": provenance.hardware(self.device),
            "threads": self.threads,
            "data_digest": trainer.dataset.digest if trainer else None,
        }

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write the trainer's state into a folder."""
        if self.trainer:
            checkpoint.save(Path(checkpoint_dir) / "trainer.pt", self.trainer)

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        """Go on from the state in a folder."""
        _, state = checkpoint.load(Path(checkpoint_dir) / "trainer.pt")
        trainer = self.trainer or self._begin()
        trainer.load_state_dict(state)
