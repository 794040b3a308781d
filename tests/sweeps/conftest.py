import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from sweeps.engine.stores import artifacts
from sweeps.engine.stores.store import default_uri, make_database
from tests.analysis.stand_ins import driven, write_grid, write_single
from tests.interrupts import heed_signals
from tests.memmeta.data import on_disk

TINY = Path(__file__).with_name("tiny.py")


class Sweep:
    """Runs the tiny study in its own folder, with the command line that users type."""

    def __init__(self, folder: Path, data_root: Path) -> None:
        self.storage = folder / "runs"
        self.data_root = data_root
        # Start a new cluster even if this machine runs another one.
        self.environment = os.environ | {"RAY_ADDRESS": "local"}
        self.started: list[subprocess.Popen] = []

    def start(
        self,
        *options: str,
        script: Path = TINY,
        preexec: Callable[[], None] = heed_signals,
    ) -> subprocess.Popen:
        command = [sys.executable, script, "--data-root", self.data_root, *options]
        process = subprocess.Popen(
            [*map(str, command), "--storage", str(self.storage)],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=preexec,
        )
        self.started.append(process)
        return process

    def end(self) -> None:
        """Kill processes that a failed test has left."""
        for process in self.started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def run(self, *options: str, script: Path = TINY) -> tuple[int, str]:
        process = self.start(*options, script=script)
        output, _ = process.communicate(timeout=600)
        return process.returncode, output


@pytest.fixture
def sweep(tmp_path, data_root) -> Iterator[Sweep]:
    made = Sweep(tmp_path, data_root)
    yield made
    made.end()


@pytest.fixture
def two_data_sets(data_root, tmp_path) -> Path:
    """A data root with glyphs and a small FC100."""
    images = on_disk.some_images("fc100", 32, least=3, most=3)
    on_disk.cifar_folders(images, tmp_path / "data")
    (tmp_path / "data" / "cache").mkdir()
    (tmp_path / "data" / "cache" / "glyphs").symlink_to(data_root / "cache" / "glyphs")
    return tmp_path / "data"


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory) -> Path:
    """A new MLflow database to copy, since creating one takes seconds."""
    folder = tmp_path_factory.mktemp("empty store")
    make_database(default_uri(folder))
    return folder / "mlflow.db"


@pytest.fixture(scope="session")
def original_storage(tmp_path_factory, empty_store) -> Path:
    storage = tmp_path_factory.mktemp("inventory")
    shutil.copy(empty_store, storage)
    for name, write in (("single", write_single), ("factorial", write_grid)):
        folder = storage / f"{name}-60steps-seed0"
        with driven(folder, name, 0, default_uri(storage), "shared") as driver:
            write(driver)
    return storage


@pytest.fixture
def storage(tmp_path, original_storage) -> Path:
    """A storage folder with finished sweeps of `single` and `factorial` in one experiment."""
    storage = tmp_path / "runs"
    shutil.copytree(original_storage, storage)
    artifacts.follow(default_uri(storage))
    return storage
