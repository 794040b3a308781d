import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from sweeps.engine.stores.store import default_uri, make_database
from tests.interrupts import heed_signals

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
        output, _ = process.communicate(timeout=180)
        return process.returncode, output


@pytest.fixture
def sweep(tmp_path, data_root) -> Iterator[Sweep]:
    made = Sweep(tmp_path, data_root)
    yield made
    made.end()


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory) -> Path:
    """A new MLflow database to copy, since creating one takes seconds."""
    folder = tmp_path_factory.mktemp("empty store")
    make_database(default_uri(folder))
    return folder / "mlflow.db"
