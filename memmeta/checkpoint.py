"""Checkpoints: a trainer's state with the config that made it, in one file."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from memmeta import files, limits
from memmeta.config import RunConfig, parse
from memmeta.errors import InputError
from memmeta.training import MetaTrainer

BETWEEN_SAVES = 300.0
"""Seconds after which a trainer is saved between two steps, where validations are further apart."""


def check_writable(path: Path) -> None:
    """To be called before training, which would be lost.

    Raises:
        InputError: `path` cannot be written.
    """
    try:
        files.check_writable(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None


def save(path: Path, trainer: MetaTrainer) -> None:
    """Write `path`, whole or not at all: one killed half-way leaves the old file.

    Raises:
        OSError: it cannot be written, as on a full disk.
    """
    state = {"config": trainer.config.model_dump(), "trainer": trainer.state_dict()}
    try:
        with files.whole(path) as file:
            torch.save(state, file)
    except RuntimeError as error:
        # PyTorch has an error of its own for what the disk said.
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def now_and_then(save: Callable[[], None]) -> Callable[[], None]:
    """What calls `save` if `BETWEEN_SAVES` have passed since it last did, or since it was made."""
    last = time.monotonic()

    def maybe_save() -> None:
        nonlocal last
        if time.monotonic() - last >= BETWEEN_SAVES:
            save()
            last = time.monotonic()

    return maybe_save


def load(path: Path) -> tuple[RunConfig, dict[str, Any]]:
    """The config, and the state for `restore`.

    Raises:
        InputError: the file is missing or no checkpoint of this program.
    """
    try:
        # weights_only: a checkpoint from somewhere else cannot run code.
        content = torch.load(path, map_location="cpu", weights_only=True)
        config, state = content["config"], content["trainer"]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    # What it raises for bytes that mean nothing depends on the bytes.
    except Exception:
        raise InputError(f"{path}: not a memmeta checkpoint, or a damaged one") from None
    return parse(RunConfig, config, str(path)), state


def restore(trainer: MetaTrainer, state: dict[str, Any], path: Path) -> None:
    """Let a new trainer go on from what `load` found in `path`.

    Raises:
        InputError: that is not the state of a trainer with this config.
    """
    try:
        trainer.load_state_dict(state)
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if limits.is_out_of_memory(error):
            raise
        raise InputError(f"{path}: a damaged checkpoint, or one of another version") from None
