import os
import subprocess
import sys
from pathlib import Path

import pytest

from sweeps.engine.store import default_uri, make_database
from tests.interrupts import heed_ctrl_c

TINY = Path(__file__).with_name("tiny.py")


class Sweep:
    """The tiny study in a folder of its own, run by the command line that users type."""

    def __init__(self, folder: Path, data_root: Path) -> None:
        self.storage = folder / "runs"
        self.data_root = data_root
        # Beside a cluster of somebody else's on this machine, tests start their own.
        self.environment = os.environ | {"RAY_ADDRESS": "local"}

    def start(self, *options: str, script: Path = TINY) -> subprocess.Popen:
        command = [sys.executable, script, "--data-root", self.data_root, *options]
        return subprocess.Popen(
            [*map(str, command), "--storage", str(self.storage)],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=heed_ctrl_c,
        )

    def run(self, *options: str, script: Path = TINY) -> tuple[int, str]:
        process = self.start(*options, script=script)
        output, _ = process.communicate(timeout=180)
        return process.returncode, output


@pytest.fixture
def sweep(tmp_path, data_root) -> Sweep:
    return Sweep(tmp_path, data_root)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory) -> Path:
    """A new MLflow database, to be copied: making one takes seconds."""
    folder = tmp_path_factory.mktemp("empty store")
    make_database(default_uri(folder))
    return folder / "mlflow.db"
