import os
from pathlib import Path

import pytest
import slipcover.pytest_plugin
from hypothesis import settings

from memmeta import data

# Ray's workers have a lower priority by default, and would hardly run beside the other tests.
os.environ.setdefault("RAY_worker_niceness", "0")

# Slipcover replaces functions after a number of calls, which keeps tensors alive a moment longer,
# so that peaks would be too high. Processes of xdist do not read its option --threshold.
measured_by = slipcover.pytest_plugin._slipcover_instance
if measured_by is not None:
    measured_by.d_miss_threshold = 10**9

# No time limit per example: machines differ in speed, and the first use of an operator loads it.
# The examples are the same every time, so that a test fails because of a change and not by chance.
# `pytest --hypothesis-profile random` looks for new ones, and for more of them.
settings.register_profile("default", deadline=None, derandomize=True, max_examples=50)
settings.register_profile("random", deadline=None, max_examples=200)
settings.load_profile("default")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the files that have slow tests, so that no process waits for the last of them."""
    slow = {item.path for item in items if "slow" in item.keywords}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def data_root(tmp_path_factory) -> Path:
    """A data root with the glyphs cache in it, drawn once for all processes that run tests."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    data.prepare("glyphs", folder / "data")
    return folder / "data"
