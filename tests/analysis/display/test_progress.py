import pytest

from analysis.display import progress as module
from analysis.display.progress import progress


def steps(capsys: pytest.CaptureFixture[str]) -> list[str]:
    with progress("reading") as begin:
        begin("fitting")
        begin("drawing")
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()


def test_a_short_command_prints_nothing_without_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert steps(capsys) == []


def test_a_long_command_prints_steps_without_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.0)
    assert steps(capsys) == ["fitting ...", "drawing ..."]


def test_a_terminal_shows_the_step(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    assert "drawing ..." in "".join(steps(capsys))
