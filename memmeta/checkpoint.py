"""Checkpoints: the state of a trainer and its config, in one file."""

import hashlib
import io
import itertools
import time
import zipfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from memmeta.config import RECORD_VERSION, RunConfig, check_version, completed, differences, parse
from memmeta.data.inputs import Inputs
from memmeta.errors import InputError, cannot_read, cannot_write
from memmeta.memory import limits
from memmeta.registry import UntrustedCodeError, trusting
from memmeta.system import files
from memmeta.system.units import short
from memmeta.training import MetaTrainer

_MOST_CHANGES = 3
"""Fields that the message about another run names."""

BETWEEN_SAVES = 300.0
"""Seconds between two saves, if validations are further apart than that."""


class DamagedError(InputError):
    """A checkpoint that no run can continue from."""


class OtherRunError(InputError):
    """A checkpoint of a run with another config."""


class Saved(NamedTuple):
    """The content of a checkpoint."""

    config: RunConfig
    """Config of the run."""
    state: dict[str, Any]
    """`MetaTrainer.state_dict()`."""
    data_digest: str | None
    """SHA-256 of the data that the run was trained on; None in checkpoints of version 1."""
    inputs: Inputs | None
    """How new examples become network input. None in checkpoints of earlier versions, and if only
    the data set can convert them."""


def snapshot(trainer: MetaTrainer) -> Saved:
    """The content of a checkpoint of `trainer`. It shares the trainer's tensors."""
    dataset = trainer.dataset
    return Saved(trainer.config, trainer.state_dict(), dataset.digest, dataset.inputs)


def check_writable(path: Path) -> None:
    """Check that a checkpoint can be written, before training whose result would be lost.

    Raises:
        InputError: `path` cannot be written.
    """
    try:
        files.check_writable(path)
    except OSError as error:
        raise cannot_write(path, error) from None


def save(path: Path, trainer: MetaTrainer, below: Path | None = None) -> None:
    """Write a checkpoint atomically: a process killed while writing leaves the old file.

    Args:
        path: the file.
        trainer: the trainer to save.
        below: a folder that must exist, see `files.atomic_write`.

    Raises:
        OSError: the file cannot be written, for example because the disk is full.
    """
    save_snapshot(path, snapshot(trainer), below)


def save_snapshot(path: Path, saved: Saved, below: Path | None = None) -> None:
    """Write the result of `snapshot`, as `save` does."""
    content = {
        "version": RECORD_VERSION,
        "config": saved.config.model_dump(),
        "data_digest": saved.data_digest,
        "inputs": saved.inputs.model_dump() if saved.inputs else None,
        "trainer": saved.state,
    }
    write(path, content, below)


def write(path: Path, content: dict[str, Any], below: Path | None = None) -> None:
    """Write the content of a checkpoint, sealed with its SHA-256.

    Args:
        path: the file.
        content: what `load` reads, as `save` collects it.
        below: a folder that must exist, see `files.atomic_write`.

    Raises:
        OSError: the file cannot be written.
    """
    packed = io.BytesIO()
    torch.save(content, packed)
    with files.atomic_write(path, below) as file:
        file.write(_sealed(packed.getvalue()))


def _sealed(archive: bytes) -> bytes:
    """Add a ZIP comment with the SHA-256 of all bytes before it. `torch.load` ignores it."""
    body = archive[:-2]  # without the length of the comment, which is 0
    comment = _seal(body)
    return body + len(comment).to_bytes(2, "little") + comment


def _seal(body: bytes) -> bytes:
    return b"sha256 " + hashlib.sha256(body).hexdigest().encode()


def throttled(act: Callable[[], None], seconds: float | None = None) -> Callable[[], None]:
    """Return a function that calls `act` at most once in `seconds`.

    Args:
        act: for example a function that saves.
        seconds: `BETWEEN_SAVES` by default.
    """
    pause = BETWEEN_SAVES if seconds is None else seconds
    last = time.monotonic()

    def maybe_act() -> None:
        nonlocal last
        if time.monotonic() - last >= pause:
            act()
            last = time.monotonic()

    return maybe_act


def load(path: Path, trusted: Collection[str] | None = ()) -> Saved:
    """Read a checkpoint.

    Args:
        path: the file.
        trusted: the import paths that its config may name, because the code at them may run;
            None: any.

    Raises:
        DamagedError: the file is damaged, or not a checkpoint.
        UntrustedCodeError: its config names other code.
        InputError: it is missing, cannot be read, or a later version of memmeta wrote it.
    """
    other = files.other_than_a_file(path)
    if other:
        raise DamagedError(f"{path}: not a checkpoint but {other}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise cannot_read(path, error) from None
    damaged = DamagedError(f"{path}: not a memmeta checkpoint, or a damaged one")
    try:
        is_sealed = _check_sums(content)
        # weights_only: a checkpoint from somewhere else cannot run code.
        values = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        version = int(values.get("version", 1))
        config, state = completed(RunConfig, values["config"]), values["trainer"]
        inputs, data_digest = values.get("inputs"), values.get("data_digest")
    # The error type depends on which bytes are damaged.
    except Exception:
        raise damaged from None
    check_version({"version": version}, str(path))
    if version > 1 and not is_sealed:
        raise damaged
    try:
        with trusting(trusted):
            run = parse(RunConfig, config, str(path))
        return Saved(
            run,
            state,
            data_digest,
            None if inputs is None else parse(Inputs, inputs, f"{path}: inputs"),
        )
    except UntrustedCodeError as error:
        raise UntrustedCodeError(f"{path}: {error.message}") from None
    except InputError as error:
        raise DamagedError(error.message) from None


def _check_sums(content: bytes) -> bool:
    """Compare a checkpoint with its checksums.

    Each part has a CRC-32, which PyTorch writes but does not check. These do not cover the ZIP
    file's directory, so a seal covers the whole file.

    Returns:
        Whether the file is sealed. Checkpoints of version 1 are not.

    Raises:
        Exception: the content is damaged, not a ZIP file, or compressed.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
            raise ValueError("PyTorch does not compress")
        if archive.testzip():
            raise ValueError("a checksum does not match")
        seal = archive.comment
    if seal and seal != _seal(content[: -len(seal) - 2]):
        raise ValueError("the seal does not match")
    return bool(seal)


@contextmanager
def refused_if_damaged(path: Path | str) -> Iterator[None]:
    """Turn the errors of reading a saved state that does not fit into a `DamagedError`."""
    try:
        yield
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if limits.is_out_of_memory(error):
            raise
        raise DamagedError(f"{path}: a damaged checkpoint, or one of another version") from None


def restore(trainer: MetaTrainer, saved: Saved, path: Path | str) -> None:
    """Put a new trainer into a saved state.

    Args:
        trainer: a new trainer with the same config.
        saved: the result of `load`.
        path: the file that was read, for messages.

    Raises:
        DamagedError: the state is not that of a trainer with this config.
    """
    with refused_if_damaged(path):
        trainer.load_state_dict(saved.state)
    if not 0 <= trainer.iteration <= trainer.config.iterations:
        raise DamagedError(f"{path}: a damaged checkpoint (at outer step {trainer.iteration})")
    for parameter, state in trainer.optimizer.state.items():
        # PyTorch does not check these.
        if any(value.shape not in (parameter.shape, ()) for value in state.values()):
            raise DamagedError(f"{path}: a damaged checkpoint (the state of the optimiser)")


def resume(trainer: MetaTrainer, path: Path) -> None:
    """Let a new trainer continue from the checkpoint in `path`.

    Raises:
        OtherRunError: the checkpoint has another config.
        DamagedError: the file is damaged, or not a checkpoint.
        InputError: it cannot be read, or its run was trained on other data.
    """
    try:
        saved = load(path, trusted=trainer.config.import_paths)
    except UntrustedCodeError:
        raise _other_run(path, "it names other code") from None
    if saved.config.key != trainer.config.key:
        raise _other_run(path, _changes(saved.config, trainer.config))
    digest = trainer.dataset.digest
    if saved.data_digest not in (None, digest):
        raise InputError(
            f"{path}: was trained on other data ({trainer.config.data.name} had the digest "
            f"{str(saved.data_digest)[:12]}, and has {digest[:12]}). Restore the old data, or "
            "remove the file to train again"
        )
    restore(trainer, saved, path)


def _other_run(path: Path, why: str) -> OtherRunError:
    return OtherRunError(f"{path}: the checkpoint of another run ({why}); choose another file")


def _changes(saved: RunConfig, here: RunConfig) -> str:
    """The first fields in which two configs differ, in words."""
    found = [*differences(saved.model_dump(), here.model_dump())]
    texts = [f"{name} {short(old)}, here {short(new)}" for name, old, new in found[:_MOST_CHANGES]]
    more = len(found) - len(texts)
    return "; ".join([*texts, f"and {more} more"] if more else texts)


def set_aside(path: Path) -> Path:
    """Rename an unusable checkpoint, so that its run can start over. Returns the new path."""
    numbers = itertools.count(1)
    names = (path.with_name(f"{path.name}.damaged-{number}") for number in numbers)
    aside = next(name for name in names if not name.exists())
    path.rename(aside)
    return aside
