import signal
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from analysis.__main__ import main
from analysis.verify import memory_deviation, metric_deviation, read_claim, with_fresh_seed
from memmeta import data
from memmeta.config import RunConfig
from memmeta.errors import InputError
from memmeta.exported import FreshSeed
from memmeta.metric import ACCURACY, MSE
from memmeta.system import provenance
from memmeta.system.runtime import configure_process
from memmeta.training import MetaTrainer
from tests import ROOT
from tests.interrupts import heed_signals

TINY: dict[str, Any] = {
    "data": {"name": "glyphs", "shots": 1, "queries": 1, "eval_queries": 2},
    "learner": {"filters": 4, "inner_steps": 2, "cg_steps": 2, "task_batch": 2},
    "training": {"iterations": 4, "evaluations": 2, "val_tasks": 6},
}
CONFIRMED = {"seeds": [1, 2], "val": 0.4, "test": 0.4}

Write = Callable[..., Path]


@pytest.fixture(scope="module")
def measured(data_root: Path) -> dict[str, Any]:
    """Results and hardware of the tiny run with seed 3, its first fresh seed."""
    configure_process(threads=1)
    trainer = MetaTrainer(
        RunConfig.model_validate(TINY | {"seed": 3}), data.load("glyphs", data_root), "cpu"
    )
    while not trainer.done:
        trainer.step()
    return {
        "value": trainer.evaluate("val", 6).value,
        "peak": trainer.peak_memory,
        "hardware": provenance.hardware(torch.device("cpu")),
        "digest": trainer.dataset.digest,
    }


@pytest.fixture
def write(measured: dict[str, Any], tmp_path: Path) -> Write:
    """A function that writes an exported file of the tiny run. Without changes, its claim holds."""

    def exported(
        *,
        low: float = -0.01,
        high: float = 0.01,
        config: dict[str, Any] = TINY,
        results: dict[str, Any] | None = None,
        **source: Any,
    ) -> Path:
        value = measured["value"]
        stated = {
            "val_accuracy": value,
            "val_interval": 0.1,
            "val_tasks": 6,
            "peak_memory_bytes": measured["peak"],
            "seconds_per_step": 0.25,
            "confirmed": CONFIRMED,
            "fresh_seed": {"expected": value, "low": value + low, "high": value + high, "seeds": 2},
        }
        where = {
            "commit": "0f3c",
            "hardware": measured["hardware"],
            "threads": 1,
            "data_digest": measured["digest"],
            "mlflow_run_id": "1",
            "mlflow_parent_run_id": "2",
        }
        run = {"config": config, "results": stated | (results or {}), "provenance": where | source}
        path = tmp_path / "best.yaml"
        path.write_text(yaml.safe_dump({"study": "tiny", "runs": [run]}))
        return path

    return exported


@pytest.fixture
def invoke(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> Result:
        options = ["--data-root", str(data_root), "--device", "cpu"]
        return CliRunner().invoke(main, ["verify", *map(str, words), *options])

    return run


def test_a_run_with_the_stated_results_is_verified(
    write: Write, invoke: Callable[..., Result], measured: dict[str, Any], tmp_path: Path
) -> None:
    result = invoke(write())
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == "fresh seed 3, 4 outer steps on cpu"
    accuracy, peak, step, verdict = lines[-4:]
    assert accuracy.startswith(f"accuracy:    {measured['value']:.2%}, stated ")
    assert accuracy.endswith(": holds")
    assert peak.endswith("holds (same hardware: to the byte)")
    assert "stated 0.250 s: not verified" in step
    assert verdict == "verified"
    assert [file.name for file in tmp_path.iterdir()] == ["best.yaml"]


def test_results_on_other_data_are_not_verified(
    write: Write, invoke: Callable[..., Result]
) -> None:
    others = {"fc100": 0.3, "omniglot": 0.4}
    result = invoke(write(results={"confirmed": CONFIRMED | {"others": others}}))
    assert result.exit_code == 0, result.output
    assert "results on fc100, omniglot: not verified" in result.stdout.splitlines()


def test_an_interval_that_excludes_the_run_is_refuted(
    write: Write, invoke: Callable[..., Result]
) -> None:
    result = invoke(write(low=0.061, high=0.1))
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: not verified: accuracy ")
    assert "is 6.1 points below the stated" in line
    assert "peak memory" not in line


def test_on_the_same_hardware_the_peak_must_be_equal(
    write: Write, invoke: Callable[..., Result], measured: dict[str, Any]
) -> None:
    result = invoke(write(results={"peak_memory_bytes": measured["peak"] - 1}))
    assert result.exit_code == 1
    assert "not verified: peak memory is 1 B (" in result.stderr
    assert "holds" in result.stdout


@pytest.mark.parametrize(("off", "code"), [(0.009, 0), (0.012, 1)])
def test_on_other_hardware_the_peak_may_differ_by_one_per_cent(
    write: Write,
    invoke: Callable[..., Result],
    measured: dict[str, Any],
    off: float,
    code: int,
) -> None:
    stated = {"peak_memory_bytes": round(measured["peak"] * (1 + off))}
    result = invoke(write(results=stated, hardware="Some GPU, torch 2"))
    assert result.exit_code == code
    assert "(other hardware: within 1 %)" in result.stdout


def test_other_data_are_refused_before_training(
    write: Write, invoke: Callable[..., Result]
) -> None:
    result = invoke(write(data_digest="9e1d" * 16))
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert "glyphs differs from the stated data" in line
    assert "9e1d9e1d9e1d" in line


def test_divergence_is_a_failure(write: Write, invoke: Callable[..., Result]) -> None:
    learner = TINY["learner"] | {"inner_lr": 1e30}
    result = invoke(write(config=TINY | {"learner": learner}))
    assert result.exit_code == 1
    assert result.stderr == "Error: not verified: diverged at outer step 0 with seed 3\n"


@pytest.mark.parametrize(
    ("changes", "words", "said"),
    [
        (
            {"results": {"fresh_seed": None}},
            [],
            "memmeta sweep STUDY --stage confirm --seeds 2",
        ),
        ({"results": {"peak_memory_bytes": None}}, [], "no peak memory to verify"),
        (
            {},
            ["--seed", "2"],
            "not a fresh seed; the stated results are based on 0, 1, 2",
        ),
        ({}, ["--seed", "0"], "--seed 0: not a fresh seed"),
        ({}, ["--seed", str(2**64)], "command line: seed: input should be less than"),
        ({}, ["--rank", "2"], "no run of rank 2"),
        ({}, ["--device", "warp"], "device warp: "),
    ],
)
def test_a_claim_that_cannot_be_verified_is_an_input_error(
    write: Write,
    data_root: Path,
    changes: dict[str, Any],
    words: list[str],
    said: str,
) -> None:
    command = ["verify", str(write(**changes)), "--data-root", str(data_root), *words]
    result = CliRunner().invoke(main, command)
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert said in line


def test_a_plain_config_has_no_claim(tmp_path: Path, invoke: Callable[..., Result]) -> None:
    path = tmp_path / "plain.yaml"
    path.write_text(yaml.safe_dump(TINY))
    result = invoke(path)
    assert result.exit_code == 2
    assert "no results to verify" in result.stderr


def test_the_fresh_seed_is_one_above_all_used_ones(write: Write) -> None:
    claim = read_claim(write(), 1)
    assert claim.used_seeds == {0, 1, 2}
    assert with_fresh_seed(claim, None) == claim.config.model_copy(update={"seed": 3})
    assert with_fresh_seed(claim, 8).seed == 8
    alone = read_claim(write(config=TINY | {"seed": 6}, results={"confirmed": None}), 1)
    assert with_fresh_seed(alone, None).seed == 7
    with pytest.raises(InputError, match="not a fresh seed"):
        with_fresh_seed(alone, 6)


@given(low=st.floats(0, 1), width=st.floats(0, 1), value=st.floats(0, 1))
def test_a_value_holds_if_it_is_inside(low: float, width: float, value: float) -> None:
    stated = FreshSeed(expected=low, low=low, high=low + width, seeds=1)
    for metric in (ACCURACY, MSE):
        complaint = metric_deviation(metric, stated, value)
        if complaint is None:
            assert low <= value <= low + width
        else:
            assert ("below" in complaint) == (value < low)
            assert ("above" in complaint) == (value > low + width)


@given(stated=st.integers(100, 2**40), per_mille=st.integers(-15, 15), rest=st.integers(-1, 1))
def test_a_peak_holds_if_it_is_near(stated: int, per_mille: int, rest: int) -> None:
    peak = stated + stated * per_mille // 1000 + rest
    assert (memory_deviation(stated, peak, same_hardware=True) is None) == (stated == peak)
    near = Fraction(99, 100) <= Fraction(peak, stated) <= Fraction(101, 100)
    assert (memory_deviation(stated, peak, same_hardware=False) is None) == near


@pytest.mark.faults
@pytest.mark.parametrize(
    ("number", "said"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")]
)
def test_a_signal_prints_one_line(write: Write, data_root: Path, number: int, said: str) -> None:
    training = TINY["training"] | {"iterations": 10**6}
    path = write(config=TINY | {"training": training})
    process = subprocess.Popen(
        [sys.executable, "-m", "analysis", "verify", path, "--data-root", data_root],
        cwd=ROOT,
        env={"PATH": "", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_signals,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("fresh seed 3")
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, errors.strip()) == (128 + number, f"stopped by {said}")
