from pathlib import Path

import pytest

from memmeta.data import prepare


@pytest.fixture(scope="session")
def glyphs_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root in which glyphs are prepared."""
    root = tmp_path_factory.mktemp("glyphs")
    prepare("glyphs", root)
    return root
