"""`import sweeps`: the public names, and what their import costs."""

import subprocess
import sys

import pytest

import sweeps


def test_every_public_name_exists_and_is_listed():
    assert set(sweeps.__all__) <= set(dir(sweeps))
    for name in sweeps.__all__:
        assert getattr(sweeps, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'sweeps' has no attribute 'Studdy'"):
        _ = sweeps.Studdy


@pytest.mark.parametrize(
    ("statement", "unused"),
    [
        ("import sweeps", {"optuna", "ray", "mlflow", "torch", "pandas", "pydantic"}),
        ("from sweeps import Study, loguniform", {"ray", "mlflow", "torch", "pandas"}),
        ("from sweeps import load", {"ray", "mlflow", "torch", "pandas"}),
    ],
)
def test_an_import_loads_no_library_that_it_does_not_need(statement, unused):
    code = f"import sys\n{statement}\nprint(*({unused!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
