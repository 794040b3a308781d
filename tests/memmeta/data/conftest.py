import urllib.request

import pytest


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every connection goes to a proxy that nobody runs: real downloads, up to the first one."""
    for variable in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    # urllib keeps its first opener for good, with the proxies of that moment.
    monkeypatch.setattr(urllib.request, "_opener", None)
