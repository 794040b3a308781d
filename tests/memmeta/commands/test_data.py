import pytest
from click.testing import CliRunner

from memmeta.__main__ import main
from memmeta.commands.data import data
from memmeta.data import DATA_SETS


def listed(root) -> dict[str, str]:
    result = CliRunner().invoke(data, ["list", "--data-root", str(root)])
    assert result.exit_code == 0, result.output
    return {line.split()[0]: line for line in result.output.splitlines()[1:] if line[0] != " "}


def test_list_names_every_data_set_and_how_to_get_it(tmp_path):
    lines = listed(tmp_path)
    assert list(lines) == [*DATA_SETS]
    assert "missing" in lines["cifar_fs"]
    assert "memmeta data download cifar_fs" in lines["cifar_fs"]
    assert "built in" in lines["glyphs"]
    assert [*tmp_path.iterdir()] == []


def test_list_says_which_data_sets_are_there(tmp_path):
    (tmp_path / "omniglot-py").mkdir()
    for name in ("images_background", "images_evaluation"):
        (tmp_path / "omniglot-py" / name).mkdir()
    assert "found" in listed(tmp_path)["omniglot"]


@pytest.mark.parametrize("words", [["data", "download"], ["download"]])
def test_download_under_its_present_and_its_old_name(words, tmp_path):
    result = CliRunner().invoke(main, [*words, "glyphs", "--data-root", str(tmp_path)])
    assert result.exit_code == 2
    assert "glyphs: cannot be downloaded" in result.output


def test_the_old_name_is_hidden():
    assert "  download" not in CliRunner().invoke(main, ["--help"]).output
