"""The documents outside `docs/`, whose links `mkdocs build --strict` does not see."""

import re

import pytest

from tests import ROOT

DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "cluster/README.md")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_to_files(name):
    document = ROOT / name
    links = re.findall(r"\]\(([^)#\s]+)", document.read_text(encoding="utf-8"))
    paths = [document.parent / link for link in links if "://" not in link]
    assert [path for path in paths if not path.exists()] == []
