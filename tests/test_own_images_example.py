"""The example of own images, run as a user does."""

import os
import re
import subprocess
import sys

import pytest

from memmeta.data import load_dataset
from tests import ROOT


@pytest.mark.thorough
def test_own_images_from_nothing_to_a_report(tmp_path):
    variables = {"PYTHONPATH": str(ROOT), "RAY_ADDRESS": "local", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, ROOT / "examples/own_images.py"],
        cwd=tmp_path,
        env=os.environ | variables,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "class folders, 40 classes, 960 images" in done.stderr
    accuracy = float(re.search(r"validation accuracy ([\d.]+)%", done.stdout)[1])
    assert accuracy > 40  # chance is 20
    assert "drawings" in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    dataset = load_dataset("drawings", tmp_path / "data")
    assert [len(split.class_names) for split in (dataset.train, dataset.val, dataset.test)] == [
        24,
        8,
        8,
    ]
