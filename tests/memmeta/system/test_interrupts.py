"""Ctrl-C while a command line still imports."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import ROOT
from tests.interrupts import heed_signals


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("command", [["-m", "memmeta"], ["-m", "sweeps"], ["-m", "analysis"]])
def test_ctrl_c_during_imports_is_one_line(command):
    process = subprocess.Popen(
        [sys.executable, *command, "--help"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=heed_signals,
    )
    # The configs' own dependency comes after the module that handles Ctrl-C.
    while "pydantic_core" not in Path(f"/proc/{process.pid}/maps").read_text():
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "stopped by Ctrl-C\n")
    assert output == ""
