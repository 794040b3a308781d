"""`memmeta sweep`, and where users stand when they call it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from sweeps.commands.sweep import sweep
from tests import ROOT

STUDY = """
import helper
from memmeta.config import DataConfig, LearnerConfig, TrainingConfig
from sweeps.engine.study import Study

STUDY = Study(
    name="mine",
    data=DataConfig(name="glyphs", shots=1, queries=1, eval_queries=2),
    learner=LearnerConfig(filters=4, inner_steps=2, cg_steps=2, task_batch=2),
    training=TrainingConfig(iterations=2, evaluations=1, val_tasks=4, test_tasks=4),
    grid={"inner_steps": helper.STEPS},
    seeds=1,
)
"""


def test_a_study_in_yaml_has_the_same_options(data_root):
    options = ["--seeds", "1", "--tune", "inner_lr=0.1,0.3,0.9"]
    study = [str(ROOT / "examples/k_by_n.yaml"), "--data-root", str(data_root), "--dry-run"]
    result = CliRunner().invoke(sweep, [*study, *options])
    assert result.exit_code == 0, result.output
    for part in ("k_by_n-100steps-seed0", "36 trials on glyphs", "tune 27, grid 9", "predicted: "):
        assert part in result.stdout
    for part in ("inner_lr, the best of", "0.1, 0.3, 0.9"):
        assert part in result.stdout


def test_a_missing_file_is_reported_in_one_line():
    result = CliRunner().invoke(sweep, ["nowhere.yaml"])
    assert (result.exit_code, result.stderr) == (2, "Error: nowhere.yaml: no such file\n")


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["sweeps", "run", "glyphs"], marks=pytest.mark.thorough),
        ["memmeta", "sweep", "glyphs"],
    ],
)
def test_the_modules_run_studies_as_well(words, data_root):
    command = [sys.executable, "-m", *words, "--data-root", str(data_root), "--stage", "grid"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert "there is no grid" in done.stderr


@pytest.fixture
def among_namesakes(tmp_path):
    """Runs the program `memmeta` in a folder with other packages of the same names."""
    for name in ("analysis", "sweeps"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('the wrong package')")
    (tmp_path / "memmeta.py").write_text("raise ImportError('the wrong module')")
    # The script that pip writes.
    script = tmp_path / "bin" / "memmeta"
    script.parent.mkdir()
    script.write_text("import sys\nfrom memmeta.__main__ import run\nsys.exit(run())\n")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "RAY_ADDRESS": "local"}

    def call(*words: str | Path) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, script, *map(str, words)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=180,
        )
        return done.returncode, done.stdout + done.stderr

    return call


@pytest.mark.thorough
def test_folders_with_the_names_of_our_packages_do_not_get_in_the_way(
    among_namesakes, tmp_path, data_root
):
    (tmp_path / "helper.py").write_text("STEPS = [1, 2]")
    (tmp_path / "my_study.py").write_text(STUDY)
    code, output = among_namesakes("sweep", "my_study.py", "--data-root", data_root)
    assert code == 0, output
    code, output = among_namesakes("trials", "mine")
    assert code == 0, output
    assert "2 of 2" in output
    code, output = among_namesakes("sweeps")
    assert code == 0, output
    assert output.split("\n")[1].split()[:5] == ["mine-2steps-seed0", "finished", "2", "of", "2"]
