"""The plan of `--dry-run`, compared with real sweeps."""

import shutil
import subprocess
import sys
from datetime import datetime

import pytest
import torch
from click.testing import CliRunner

from memmeta import data
from memmeta.memory.prediction import predict_trial_memory
from memmeta.system import provenance
from sweeps.engine.command_line import _command
from sweeps.engine.display import plan
from sweeps.engine.display.timing import timing
from sweeps.engine.execution.placement import Device, Placement, Refusal
from sweeps.engine.ledger.entry import Slot
from tests.sweeps.tiny import STUDY

GIB = 2**30
CARD = Device("card", True, 1, 80 * GIB, 0, GIB // 2, host_overhead=GIB)
RUN = STUDY.run_config({}, seed=0)


@pytest.mark.parametrize("budget", [None, 200 * GIB, 3 * GIB, GIB, GIB // 4])
def test_the_plan_counts_the_configs_that_a_sweep_refuses(budget):
    refused = isinstance(Placement([CARD], 1, budget).allocate(RUN, Slot("explore", 0)), Refusal)
    assert refused == (budget == GIB // 4)
    (line,) = plan._memory([predict_trial_memory(RUN)], CARD, budget, None)
    assert ("100 % of the configs do not fit" in line) == refused


def test_the_plan_tells_whether_trials_can_meet_the_memory_limit():
    memory = predict_trial_memory(RUN)
    for limit, said in (
        (200, "memory limit 200 B: none of these configs can meet it"),
        (memory.step - 1, "none of these configs can meet it"),
        (memory.step, ": 1 of these configs stay within it"),
    ):
        _, line = plan._memory([memory], CARD, None, limit)
        assert said in line


def dry_run(data_root, *words):
    words = ["--dry-run", "--data-root", str(data_root), *words]
    return CliRunner().invoke(_command, words, obj=STUDY, catch_exceptions=False)


def test_a_plan_is_timed_once_and_describes_the_measurement(data_root, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "local")
    shutil.copytree(data_root, tmp_path / "data")
    first = dry_run(tmp_path / "data", "--memory-limit", "200")
    assert first.exit_code == 0, first.output
    text = " ".join(first.output.split())
    assert "memory limit 200 B: none of these configs can meet it" in text
    assert f"steps of 3 configs, measured at {datetime.now():%Y-%m-%d}" in text
    assert provenance.hardware(torch.device("cpu")) in text
    monkeypatch.setattr("sweeps.engine.display.timing._measure", None)
    again = dry_run(tmp_path / "data", "--memory-limit", "200")
    assert again.output == first.output


def test_timings_are_measured_if_the_cache_cannot_be_used(data_root, tmp_path):
    """The cache file is damaged, or a file is in the place of its folder."""
    dataset = data.load("glyphs", data_root)
    (tmp_path / "file").write_text("")
    for content in ("", "[1]", "{"):
        memory = tmp_path / "timings.json"
        memory.write_text(content)
        for path in (memory, tmp_path / "file" / "timings.json"):
            measured = timing(RUN, dataset, torch.device("cpu"), path)
            assert measured is not None
            assert 0 < measured.training < 10
            assert 0 < measured.validation < 10


def test_a_task_is_timed_in_processor_time(data_root, tmp_path):
    dataset = data.load("glyphs", data_root)
    alone = timing(RUN, dataset, torch.device("cpu"), tmp_path / "alone.json")
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(8)]
    try:
        beside = timing(RUN, dataset, torch.device("cpu"), tmp_path / "beside.json")
    finally:
        for other in others:
            other.kill()
            other.wait()
    # Wall-clock time would be five times as much on two cores.
    assert beside.training < 2.5 * alone.training
