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
    """Trains one `RunConfig`, given as the dict that `model_dump` makes.

    Every step leaves a checkpoint in a folder named by the run's key, and a trial starts from
    what it finds there: after a lost worker and after a lost driver alike.
    """

    def setup(self, config: dict[str, Any], data_root: Path, checkpoints: Path) -> None:
        """Make the trainer, or bring back the one that was interrupted.

        Args:
            config: the run.
            data_root: folder with the data sets.
            checkpoints: folder that every node sees.
        """
        run = RunConfig.model_validate(config)
        resources = ray.get_runtime_context().get_assigned_resources()
        self.threads = configure_process(threads=max(1, int(resources.get("CPU", 1))))
        device = torch.device("cuda" if resources.get("GPU") else "cpu")
        self.trainer = MetaTrainer(run, data.load(run.data.name, data_root), device)
        self.checkpoint_folder = checkpoints / run.key
        if (self.checkpoint_folder / "trainer.pt").exists():
            self.load_checkpoint(str(self.checkpoint_folder))

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

    def _advance(self) -> dict[str, Any]:
        trainer = self.trainer
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
            "metrics": diagnostics
            | {
                "val_accuracy": val.accuracy,
                "val_interval": val.interval,
            },
        }

    def _ended(self, status: str, message: str) -> dict[str, Any]:
        return {"status": status, "done": True, "message": message, "metrics": {}}

    def _facts(self) -> dict[str, Any]:
        trainer = self.trainer
        return {
            "step": trainer.iteration,
            "peak_memory_bytes": trainer.peak_memory,
            "seconds_per_step": trainer.seconds_per_step,
            "commit": provenance.commit(),
            "hardware": provenance.hardware(trainer.device),
            "threads": self.threads,
            "data_digest": trainer.dataset.digest,
        }

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write the trainer's state into a folder."""
        checkpoint.save(Path(checkpoint_dir) / "trainer.pt", self.trainer)

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        """Go on from the state in a folder."""
        _, state = checkpoint.load(Path(checkpoint_dir) / "trainer.pt")
        self.trainer.load_state_dict(state)
