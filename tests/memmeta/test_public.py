"""`import memmeta`: fast, and its names are there when they are used."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import memmeta


def test_every_public_name_is_an_object():
    for name in memmeta.__all__:
        assert getattr(memmeta, name) is not None
    assert set(memmeta.__all__) <= set(dir(memmeta))


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(memmeta.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    imported = {
        (node.module, alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert imported == {(m, name) for m, names in memmeta._MODULES.items() for name in names}
    assert {name for _, name in imported} == set(memmeta.__all__)


def test_other_names_are_an_error():
    with pytest.raises(AttributeError, match="no attribute 'tarin'"):
        memmeta.tarin  # noqa: B018


def test_importing_it_imports_nothing_large():
    code = (
        "import sys, memmeta as mm; dir(mm)\n"
        "print(*{'click', 'numpy', 'pydantic', 'rich', 'torch'} & sys.modules.keys())\n"
        "mm.LearnerConfig(filters=4); print('torch' in sys.modules)\n"
        "mm.train; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["", "False", "True"]
