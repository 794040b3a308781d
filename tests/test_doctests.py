"""The examples in docstrings give what they show."""

import doctest
from importlib import import_module

import pytest

from tests import ROOT

MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for package in ("memmeta", "sweeps", "analysis")
    for path in (ROOT / package).rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_of(name, data_root, tmp_path, monkeypatch):
    """Examples find the data set glyphs in `data`, and write files into the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(data_root)
    results = doctest.testmod(import_module(name))
    assert results.attempted > 0
    assert results.failed == 0
