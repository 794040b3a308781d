"""The code that travels with a sweep."""

import sys
from pathlib import Path

import pytest

from memmeta.algorithms import ALGORITHMS, Algorithm
from memmeta.errors import InputError
from memmeta.registry import ImportPath
from sweeps.engine.execution import own_code as own
from sweeps.engine.execution.own_code import OwnCode, import_paths, own_code, own_modules
from sweeps.engine.study import Study

NETS = """
import json, numpy
from helper_of_nets import layer

try:
    import no_such_module
except ImportError:
    pass

def make(inputs, outputs, width):
    raise NotImplementedError

backward = make
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A current folder with `nets_here`, which imports a helper, and a package."""
    here = tmp_path / "here"
    package = here / "package_here"
    (package / "__pycache__").mkdir(parents=True)
    (package / ".git").mkdir()
    (here / "nets_here.py").write_text(NETS)
    (here / "helper_of_nets.py").write_text("layer = None")
    (package / "__init__.py").write_text("")
    (package / "nets.py").write_text("import nets_here\nfrom .tables import TABLE")
    (package / "tables.py").write_text("TABLE = 1")
    (package / "table.csv").write_text("1,2")
    for left_behind in ("__pycache__/nets.pyc", ".git/config"):
        (package / left_behind).write_text("x")
    (here / "unrelated.py").write_text("")
    monkeypatch.setattr(sys, "path", [*sys.path, str(here)])
    monkeypatch.chdir(here)
    yield here
    for name in [name for name in sys.modules if name.endswith(("_here", "helper_of_nets"))]:
        del sys.modules[name]


def study(**changes) -> Study:
    values = {"name": "s", "data": {"name": "glyphs"}, "training": {"tasks": 9}}
    return Study(**(values | changes))


def copies(code: OwnCode) -> list[str]:
    found = (path for path in code.folder.rglob("*") if path.is_file())
    return sorted(path.relative_to(code.folder).as_posix() for path in found)


def test_a_study_of_built_in_objects_has_no_code_of_its_own(tmp_path):
    assert own_code(study(), tmp_path) == own.NO_OWN_CODE
    assert [*tmp_path.iterdir()] == []


def test_all_objects_that_trials_may_use_are_found():
    named = study(
        learner={"algorithm": "json:loads"},
        space={"algorithm": ["memory_reduced", "json:dumps"], "inner_lr": [0.1, 1.0]},
        grid={"head": ["linear", "collections:OrderedDict"]},
        tuned={"ridge": [0.1]},
    )
    assert import_paths(named) == ("json:loads", "json:dumps", "collections:OrderedDict")


def test_a_module_travels_with_those_it_imports(folder, tmp_path):
    code = own_code(study(learner={"algorithm": "nets_here:backward"}), tmp_path)
    assert copies(code) == ["helper_of_nets.py", "nets_here.py"]
    assert code.folder == tmp_path / "code" / code.digest
    again = own_code(study(learner={"algorithm": "nets_here:backward"}), tmp_path)
    assert again == code
    (folder / "helper_of_nets.py").write_text("layer = 2")
    edited = own_code(study(learner={"algorithm": "nets_here:backward"}), tmp_path)
    assert edited.digest != code.digest
    assert copies(code) == copies(edited)
    assert (code.folder / "helper_of_nets.py").read_text() != "layer = 2"


@pytest.mark.usefixtures("folder")
def test_a_package_travels_without_hidden_and_compiled_files():
    assert [*own_modules(["package_here"])] == ["helper_of_nets", "nets_here", "package_here"]
    files = own._files("package_here", Path("package_here"))
    assert [path.name for path in files] == ["__init__.py", "nets.py", "table.csv", "tables.py"]


def test_installed_modules_and_those_of_memmeta_stay():
    assert own_modules(["optuna", "json", "memmeta", "sweeps", "no_such_module"]) == {}
    assert own._packages(["optuna", "json"]) == (("optuna", own.metadata.version("optuna")),)


def test_a_folder_that_is_too_large_is_refused(folder, monkeypatch):
    with (folder / "package_here/weights.bin").open("wb") as file:
        file.truncate(own._MOST_BYTES)
    with pytest.raises(InputError, match=r"package_here: module package_here is too large") as said:
        own._files("package_here", folder / "package_here")
    assert "\n" not in said.value.message
    (folder / "package_here/weights.bin").unlink()
    monkeypatch.setattr(own, "_MOST_FILES", 3)
    with pytest.raises(InputError, match="too large to travel"):
        own._files("package_here", folder / "package_here")


@pytest.mark.usefixtures("folder")
def test_workers_import_the_copies_first(tmp_path):
    code = own_code(study(learner={"algorithm": "nets_here:backward"}), tmp_path)
    for name in ("nets_here", "helper_of_nets"):
        sys.modules.pop(name, None)
    assert code.problems() == []
    assert Path(sys.modules["nets_here"].__file__).parent == code.folder


def test_a_process_that_lacks_the_code_says_so_in_one_line_each():
    lacking = OwnCode((ImportPath("nowhere:make"), ImportPath("json:make")))
    one, other = lacking.problems()
    assert one.startswith("nowhere cannot be imported: ModuleNotFoundError")
    assert other == "module json has no object make"


def test_objects_that_only_this_process_knows_are_refused(monkeypatch):
    monkeypatch.setattr(ALGORITHMS, "_objects", {**ALGORITHMS._objects})
    ALGORITHMS.register("mine", Algorithm(ImportPath("json:loads")))
    with pytest.raises(InputError, match="algorithm mine is registered in this process only"):
        import_paths(study(learner={"algorithm": "mine"}))
    monkeypatch.setattr(sys.modules["__main__"], "backward", print, raising=False)
    with pytest.raises(InputError, match="workers cannot import the script"):
        import_paths(study(learner={"algorithm": "__main__:backward"}))
