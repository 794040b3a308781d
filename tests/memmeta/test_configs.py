from pathlib import Path

import pytest

from memmeta.exported import read_run

CONFIGS = sorted((Path(__file__).parents[2] / "configs").rglob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_of_the_data_set_it_is_named_by(path):
    assert path.stem.startswith(read_run(path).config.data.name)
