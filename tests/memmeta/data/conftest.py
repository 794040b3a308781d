import urllib.request

import pytest


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send all connections to a proxy that does not exist, so that downloads fail."""
    for variable in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    # urllib caches an opener with the proxies of its first use.
    monkeypatch.setattr(urllib.request, "_opener", None)
