"""A real MLflow server, which can be killed and started again."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from sweeps.engine.stores.store import default_uri

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class MlflowServer:
    """Serves the store in a folder on a port of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> "MlflowServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
        with (self._folder / "server.log").open("w") as log:
            self._process = subprocess.Popen(
                [
                    *command,
                    *("--port", str(self._port)),
                    *("--backend-store-uri", default_uri(self._folder)),
                ],
                cwd=self._folder,
                # Without seven processes that run jobs for language models.
                env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                stdout=log,
                stderr=log,
                start_new_session=True,  # Its helpers outlive it, but not the end of their group.
            )
        deadline = time.monotonic() + 120
        while refusal := self._refusal():
            said = f"{refusal!r}\n{(self._folder / 'server.log').read_text()[-2000:]}"
            assert time.monotonic() < deadline, f"the MLflow server does not answer: {said}"
            assert self._process.poll() is None, f"the MLflow server ended: {said}"
            time.sleep(0.2)

    def kill(self) -> None:
        """End it at once."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _refusal(self) -> OSError | None:
        try:
            _DIRECT.open(f"{self.address}/health", timeout=5).close()
        except OSError as error:
            return error
        return None
