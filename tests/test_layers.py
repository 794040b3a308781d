"""The rooms of the house: each can be imported without those to its right."""

import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import analysis
import memmeta
import sweeps


def modules(package):
    return [name for _, name, _ in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [(memmeta, {"ray", "optuna", "mlflow", "sweeps", "analysis"}), (analysis, {"ray"})],
)
def test_imports_nothing_of_other_rooms(package, forbidden):
    code = f"import importlib, sys\nfor m in {modules(package)!r}: importlib.import_module(m)\n"
    code += f"print(*({forbidden!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_every_package_is_installed():
    """Not only where the install is of the folder itself."""
    rooms = (memmeta, sweeps, analysis)
    packages = {
        name
        for room in rooms
        for _, name, is_package in pkgutil.walk_packages(room.__path__, f"{room.__name__}.")
        if is_package
    }
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    listed = project["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(packages | {room.__name__ for room in rooms})
