"""The layers: memmeta is imported without the others, and analysis without Ray."""

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import analysis
import memmeta
import sweeps.engine


def modules(package):
    return [name for _, name, _ in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        (memmeta, {"ray", "optuna", "mlflow", "sweeps", "analysis"}),
        (sweeps.engine, {"analysis"}),
        (analysis, {"ray"}),
    ],
)
def test_imports_nothing_forbidden(package, forbidden):
    code = f"import importlib, sys\nfor m in {modules(package)!r}: importlib.import_module(m)\n"
    code += f"print(*({forbidden!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_every_folder_with_code_is_a_package():
    """Others are not installed."""
    for package in (memmeta, sweeps, analysis):
        for path in Path(package.__file__).parent.rglob("*.py"):
            assert (path.parent / "__init__.py").exists()
