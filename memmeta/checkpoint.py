"""Checkpoints: a trainer's state with the config that made it, in one file."""

import pickle
from pathlib import Path
from typing import Any

import torch

from memmeta import files
from memmeta.config import RunConfig, parse
from memmeta.errors import InputError
from memmeta.training import MetaTrainer


def save(path: Path, trainer: MetaTrainer) -> None:
    """Write `path`, whole or not at all: one killed half-way leaves the old file."""
    state = {"config": trainer.config.model_dump(), "trainer": trainer.state_dict()}
    with files.whole(path) as file:
        torch.save(state, file)


def load(path: Path) -> tuple[RunConfig, dict[str, Any]]:
    """The config, and the state for a `MetaTrainer` made with it.

    Raises:
        InputError: the file is missing or no checkpoint of this program.
    """
    try:
        # weights_only: a checkpoint from somewhere else cannot run code.
        content = torch.load(path, map_location="cpu", weights_only=True)
        config, state = content["config"], content["trainer"]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError):
        raise InputError(f"{path}: not a memmeta checkpoint, or a damaged one") from None
    return parse(RunConfig, config, str(path)), state
