"""Progress on terminals and in notebooks."""

import io
from contextlib import suppress

import pytest
from rich.console import Console

from memmeta.fit import train_run
from memmeta.progress import ConsoleProgress, NotebookProgress, text_bar

NOTEBOOK = Console(force_jupyter=True, width=80, highlight=False)


def test_lines_are_printed_without_a_terminal_and_the_bar_is_not(run, dataset):
    output = io.StringIO()
    train_run(run, dataset, progress=ConsoleProgress(Console(file=output)))
    lines = output.getvalue().splitlines()
    assert [line.split()[:2] for line in lines] == [["step", "3"], ["step", "6"]]
    assert "val accuracy" in lines[0]


def test_a_terminal_has_a_bar(run, dataset):
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=80)
    train_run(run, dataset, progress=ConsoleProgress(console))
    assert "outer steps" in output.getvalue()
    assert "val accuracy" in output.getvalue()


@pytest.fixture
def cell():
    """The texts that a notebook's cell shows, one after another."""
    pytest.importorskip("IPython")
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    InteractiveShell.instance()
    with capture_output() as captured:
        yield lambda: [output.data["text/plain"] for output in captured.outputs]
    InteractiveShell.clear_instance()


def test_a_notebook_ends_with_the_lines_and_without_the_bar(run, dataset, cell):
    train_run(run, dataset, progress=NotebookProgress(NOTEBOOK))
    texts = cell()
    assert any("0 of 6 outer steps" in text for text in texts)
    last = texts[-1].splitlines()
    assert [line.split()[:2] for line in last] == [["step", "3"], ["step", "6"]]


def test_a_notebook_whose_cell_is_interrupted_keeps_the_lines(cell):
    progress = NotebookProgress(NOTEBOOK)
    with suppress(KeyboardInterrupt), progress.bar(10, 3):
        progress.line("step 3")
        raise KeyboardInterrupt
    assert cell()[-1].strip() == "step 3"


def test_lines_outside_of_a_bar_stay_in_their_order(cell):
    progress = NotebookProgress(NOTEBOOK)
    progress.line("before [brackets]")
    with progress.bar(10, 3, "features") as advance:
        advance()
    progress.line("after")
    texts = [text.strip() for text in cell()]
    assert texts[0] == "before [brackets]"
    assert any("3 of 10 features" in text for text in texts)
    assert texts[-2:] == ["", "after"]


@pytest.mark.parametrize(("done", "filled"), [(0, 0), (1, 4), (5, 20), (9, 36), (10, 40)])
def test_the_bar_fills_with_the_steps(done, filled):
    bar, _, words = text_bar(done, 10).partition(" ")
    assert (bar.count("━"), len(bar)) == (filled, 40)
    assert words == f"{done} of 10 outer steps"
