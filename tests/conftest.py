from pathlib import Path

import pytest
from hypothesis import settings

from memmeta import data

# Machines that run the tests differ in speed, and are shared: no time limit an example.
settings.register_profile("default", deadline=None)
settings.load_profile("default")


@pytest.fixture(scope="session")
def data_root(tmp_path_factory) -> Path:
    """A data root with the glyphs cache in it."""
    folder = tmp_path_factory.mktemp("data")
    data.prepare("glyphs", folder)
    return folder
