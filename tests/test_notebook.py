"""The notebook in examples/, executed like its reader would."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from tests import ROOT

NOTEBOOK = ROOT / "examples/quickstart.ipynb"


def test_the_notebook_is_saved_without_outputs():
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.fixture(scope="module")
def outputs(tmp_path_factory, data_root):
    """The outputs of all cells, in order. The notebook ran in a folder of its own."""
    folder = tmp_path_factory.mktemp("notebook")
    shutil.copy(NOTEBOOK, folder)
    (folder / "data").symlink_to(data_root)
    jupyter = Path(sys.executable).with_name("jupyter")
    words = ["nbconvert", "--execute", "quickstart.ipynb", "--to", "notebook"]
    done = subprocess.run(
        [jupyter, *words, "--output", "done.ipynb"],
        cwd=folder,
        # Tests run side by side: more threads than cores would slow each other down.
        env=os.environ | {"PYTHONPATH": str(ROOT), "RAY_ADDRESS": "local", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    cells = nbformat.read(folder / "done.ipynb", as_version=4).cells
    return [output for cell in cells for output in cell.get("outputs", [])]


@pytest.mark.thorough
@pytest.mark.slow
def test_the_notebook_prints_no_errors_warnings_or_banners(outputs):
    assert {output.output_type for output in outputs} <= {
        "display_data",
        "execute_result",
        "stream",
    }
    streams = [(output.name, output.text) for output in outputs if output.output_type == "stream"]
    ((name, text),) = streams
    assert (name, text.startswith("accuracy: ")) == ("stdout", True)


@pytest.mark.thorough
@pytest.mark.slow
def test_the_notebook_learns_and_shows_its_progress(outputs):
    texts = [output.data["text/plain"] for output in outputs if "data" in output]
    (evaluation,) = [text for text in texts if text.startswith("Evaluation(")]
    value = float(evaluation.split("value=")[1].split(",")[0])
    assert value > 0.3  # chance is 0.2
    assert any("val accuracy" in text and "step" in text for text in texts)
    assert any("6 of 6 trials" in text for text in texts)
    assert any("report.html" in text for text in texts)
