import os
from pathlib import Path

import pytest
from hypothesis import settings

from memmeta import data

# No time limit per example: machines differ in speed, and the first use of an operator loads it.
# The examples are the same every time, so that a test fails because of a change and not by chance.
# `pytest --hypothesis-profile random` looks for new ones, and for more of them.
settings.register_profile("default", deadline=None, derandomize=True, max_examples=50)
settings.register_profile("random", deadline=None, max_examples=200)
settings.load_profile("default")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the files that have slow tests, so that no process waits for the last of them.

    Coverage is measured for one case per test, because it takes a third of the time. Other
    parameters and the examples of property tests mostly run the same lines.
    """
    slow = {item.path for item in items if "slow" in item.keywords}
    items.sort(key=lambda item: item.path not in slow)
    measured = set()
    for item in items:
        test = getattr(item, "function", None)
        if test in measured or getattr(test, "is_hypothesis_test", False):
            item.add_marker("no_cover")
        measured.add(test)


@pytest.fixture(scope="session")
def data_root(tmp_path_factory) -> Path:
    """A data root with the glyphs cache in it, drawn once for all processes that run tests."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    data.prepare("glyphs", folder / "data")
    return folder / "data"
