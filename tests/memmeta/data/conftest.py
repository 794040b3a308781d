import urllib.request
from pathlib import Path

import pytest

from memmeta.data import prepare


@pytest.fixture(scope="session")
def glyphs_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root in which glyphs are prepared."""
    root = tmp_path_factory.mktemp("glyphs")
    prepare("glyphs", root)
    return root


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every connection goes to a proxy that nobody runs: real downloads, up to the first one."""
    for variable in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    # urllib keeps its first opener for good, with the proxies of that moment.
    monkeypatch.setattr(urllib.request, "_opener", None)
