from pathlib import Path

import pytest
import torch

from memmeta import checkpoint
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
