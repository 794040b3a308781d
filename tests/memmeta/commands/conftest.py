import pytest
from click.testing import CliRunner

from memmeta.__main__ import main


@pytest.fixture
def call(data_root, tmp_path, monkeypatch):
    """Runs a command line in an empty folder; with data unless the options name another root."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> tuple[int, str]:
        options = [] if "--data-root" in words else ["--data-root", str(data_root)]
        result = CliRunner().invoke(main, [*map(str, words), "--threads", "1", *options])
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result.exit_code, result.output

    return run
