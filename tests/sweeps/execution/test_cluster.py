import subprocess
import sys

import pytest


@pytest.mark.thorough
def test_garbage_collection_in_another_thread_does_not_abort_the_shutdown_of_ray():
    # Ray ends a process that lets go of an object then, with a message and code 1.
    script = [sys.executable, "-m", "tests.sweeps.garbage"]
    done = subprocess.run(script, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
