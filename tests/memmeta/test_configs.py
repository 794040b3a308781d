import pytest

from memmeta.exported import read_run
from tests import ROOT

FOLDER = ROOT / "configs"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_is_of_the_data_set_it_is_named_by(path):
    assert read_run(path).config.data.name == path.stem


@pytest.mark.parametrize("path", sorted(FOLDER.glob("paper/*.yaml")), ids=lambda path: path.stem)
def test_every_config_of_the_paper_is_named_by_its_data_set_and_algorithm(path):
    config = read_run(path).config
    assert f"{config.data.name}_{config.learner.algorithm}" == path.stem
