"""Studies by name, in Python files and in YAML files."""

import os
import sys
from pathlib import Path

import pytest

from memmeta.errors import InputError
from sweeps.cifar_fs import STUDY as CIFAR_FS
from sweeps.engine.study.find import find_study, study_names
from tests import ROOT

HEAD = """
from memmeta.config import DataConfig, TrainingConfig
from sweeps.engine.study import Study

def study(name):
    return Study(name=name, data=DataConfig(name="glyphs"), training=TrainingConfig(tasks=9))

"""


@pytest.fixture
def found(tmp_path, monkeypatch):
    """Finds the study in a file with this content."""
    monkeypatch.setattr(sys, "path", [*sys.path])

    def find(content: str, name: str = "mine.py", head: str = HEAD):
        (tmp_path / name).write_text(head + content)
        return find_study(str(tmp_path / name))

    return find


def test_studies_that_come_with_memmeta():
    names = study_names()
    assert {"cifar_fs", "glyphs", "sinusoid"} <= {*names}
    assert all(find_study(name).name == name for name in names)
    assert find_study("cifar_fs") is CIFAR_FS


def test_a_python_file(found):
    assert found("STUDY = study('a')\nother = study('b')").name == "a"
    assert found("only = study('c')").name == "c"


def test_a_python_file_is_imported_and_not_run(found):
    assert found("STUDY = study('a')\nif __name__ == '__main__': raise ValueError").name == "a"


def test_the_folder_of_a_python_file_is_importable(found, tmp_path):
    (tmp_path / "names_of_studies.py").write_text("NAME = 'imported'")
    assert found("from names_of_studies import NAME\nSTUDY = study(NAME)").name == "imported"


def test_a_yaml_file():
    assert find_study(str(ROOT / "examples/k_by_n.yaml")).name == "k_by_n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("x = 1", "mine.py: has no Study"),
        ("STUDY = 'glyphs'", "mine.py: has no Study"),
        ("a = study('a')\nb = study('b')", "mine.py: has several studies (a, b)"),
        ("import nowhere_to_be_found", "mine.py, line 8: ModuleNotFoundError: No module named"),
        ("1 / 0", "mine.py, line 8: ZeroDivisionError: division by zero"),
        ("raise ValueError('two\\nlines')", r"line 8: ValueError: two\nlines"),
        ("def (", "mine.py, line 8: SyntaxError: invalid syntax"),
        ("study('a b')", "mine.py, line 6: Study: name: letters"),
        ("study('a').changed(nmae=1)", "mine.py, line 8: study a: unknown key nmae"),
        ("raise SystemExit", "mine.py: exits when it is imported"),
        ("x = 1\0", "mine.py: SyntaxError: source code string cannot contain null"),
    ],
)
def test_what_is_wrong_with_a_python_file_is_said_in_one_line(found, content, said):
    with pytest.raises(InputError) as raised:
        found(content)
    assert said in raised.value.message
    assert "\n" not in raised.value.message


def test_an_error_in_a_helper_names_the_helper(found, tmp_path):
    (tmp_path / "a_helper.py").write_text("\n\ndef fail(): return {}['key']")
    with pytest.raises(InputError, match=r"a_helper\.py, line 3: KeyError: 'key'"):
        found("import a_helper\na_helper.fail()")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("glyps", r"no such study \(did you mean glyphs\?\), choose from cifar_fs, "),
        ("nothing", "no such study, choose from .* or .yaml$"),
        ("nowhere.yaml", "nowhere.yaml: no such file$"),
        ("glyphs.py", r"glyphs.py: no such file \(did you mean glyphs\?\)"),
        (str(ROOT / "examples/k_n.yaml"), r"no such file \(did you mean .*k_by_n\.yaml\?\)"),
    ],
)
def test_a_missing_study_or_file(name, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=said):
        find_study(name)


def test_a_python_file_in_another_encoding(tmp_path):
    path = tmp_path / "mine.py"
    for content in (b"x = '\xff'", b"# coding: nowhere\nx = 1"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"mine\.py.*: SyntaxError: "):
            find_study(str(path))


def test_what_is_not_a_file_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.py")
    Path("folder.yaml").mkdir()
    Path("loop.py").symlink_to("loop.py")
    Path("dangling.yaml").symlink_to("nothing")
    for name, said in (
        ("pipe.py", "a pipe"),
        ("folder.yaml", "a folder"),
        ("loop.py", "a symbolic link"),
        ("dangling.yaml", "a symbolic link"),
    ):
        with pytest.raises(InputError, match=f"{name}: {said}.*is expected"):
            find_study(name)


@pytest.mark.parametrize("name", ["", "x" * 300, f"{'x' * 300}.py", f"folder/{'x' * 300}.yaml"])
def test_a_name_that_no_file_can_have(name):
    with pytest.raises(InputError, match=r"^study .*path.*is accepted") as error:
        find_study(name)
    assert len(error.value.message) < 300
