from pathlib import Path

import numpy as np
import pytest
import torch

from memmeta import checkpoint
from memmeta.data import DATA_SETS
from memmeta.data.sources import ImageSource
from tests.memmeta.commands.helpers import TINY, write


def older(content):
    content["trainer"].pop("reports")


def of_another_width(content):
    model = content["trainer"]["model"]
    model |= {name: torch.zeros(7) for name in model}


def no_state(content):
    content["trainer"] = [1, 2]


def no_report(content):
    content["trainer"]["reports"] = [{"steps": 3}]


@pytest.mark.parametrize("damage", [older, of_another_width, no_state, no_report])
def test_a_checkpoint_that_does_not_fit_is_one_line_and_exit_code_2(call, tmp_path, damage):
    config = write(tmp_path / "tiny.yaml", TINY)
    call("train", config, "--out", "run.pt")
    content = torch.load("run.pt")
    damage(content)
    checkpoint.write(Path("run.pt"), content)
    for words in (["evaluate", "run.pt"], ["train", config, "--out", "run.pt"]):
        code, output = call(*words)
        assert code == 2
        assert "run.pt: a damaged checkpoint, or one of another version" in output
        assert len(output.strip().splitlines()) == 1


def read_tiles(root, split):
    """Colour images of other sizes than those of the training data."""
    del root
    rng = np.random.default_rng(len(split))
    for name in "abcdef":
        yield name, rng.integers(0, 256, (20, 12, 10, 3), np.uint8)


def test_a_model_is_scored_on_another_data_set(call, tmp_path, monkeypatch):
    monkeypatch.setattr(DATA_SETS, "_objects", {**DATA_SETS._objects})
    DATA_SETS.register("tiles", ImageSource("tiles", (3, 12, 10), read_tiles))
    call("train", write(tmp_path / "tiny.yaml", TINY), "--out", "run.pt")
    code, output = call("evaluate", "run.pt", "--data", "tiles", "--tasks", "3")
    assert code == 0, output
    said, measured = output.strip().splitlines()[-2:]
    assert said == "trained on glyphs, scored on 3 test tasks of tiles"
    assert measured.startswith("test accuracy ")
    assert call("evaluate", "run.pt", "--data", "tiles", "--tasks", "3") == (code, output)
    for name, problem in (("sinusoid", "sinusoid has points"), ("tile", "did you mean tiles")):
        code, output = call("evaluate", "run.pt", "--data", name)
        assert code == 2
        assert problem in output
        assert len(output.strip().splitlines()) == 1


def test_a_checkpoint_that_predicts_nothing_is_one_line_and_exit_code_1(call, tmp_path):
    call("train", write(tmp_path / "tiny.yaml", TINY), "--out", "run.pt")
    content = torch.load("run.pt")
    for parameter in content["trainer"]["model"].values():
        parameter.fill_(float("nan"))
    checkpoint.write(Path("run.pt"), content)
    for split in ("val", "test"):
        code, output = call("evaluate", "run.pt", "--split", split)
        assert code == 1
        assert "diverged at outer step 4" in output
        assert len(output.strip().splitlines()) == 1
