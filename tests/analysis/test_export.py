import dataclasses
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis import export
from analysis.trials import Sweep, read_sweep
from memmeta.config import LearnerConfig, RunConfig
from memmeta.errors import InputError
from memmeta.exported import Confirmed, ExportedRun, read_run
from sweeps.engine.store import default_uri


@pytest.fixture(scope="session")
def sweep(storage: Path) -> Sweep:
    return read_sweep(default_uri(storage), "mixed")


def exported(sweep: Sweep, top: int, path: Path) -> list[ExportedRun]:
    export.write(export.best_runs(sweep, top), sweep, path, ["python", "-m", "analysis"])
    return [read_run(path, rank) for rank in range(1, min(top, len(sweep.complete)) + 1)]


def test_what_is_written_is_what_is_read(sweep: Sweep, tmp_path: Path) -> None:
    runs = exported(sweep, 2, tmp_path / "best.yaml")
    assert runs == export.best_runs(sweep, 2).runs
    for run, trial in zip(runs, sweep.trials, strict=False):
        assert run.config == trial.config
        assert run.config.key == trial.key
        assert run.results.val_accuracy == trial.value
        assert run.results.val_interval == trial.val_interval
        assert run.results.val_tasks == 50
        assert run.results.peak_memory_bytes == trial.peak_memory_bytes
        assert run.results.seconds_per_step == trial.seconds_per_step
        assert run.provenance.commit == trial.commit
        assert run.provenance.mlflow_run_id == trial.run_id
        assert run.provenance.mlflow_parent_run_id == trial.parent_run_id


finite = st.floats(allow_nan=False, allow_infinity=False)


@given(
    results=st.tuples(finite, finite, finite),
    inner_lr=st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    hardware=st.text(st.characters(codec="utf-8")),
    commit=st.from_regex(r"[0-9a-f]{4,40}(-dirty)?", fullmatch=True),
)
def test_no_digit_and_no_character_is_lost(
    sweep: Sweep,
    tmp_path_factory: pytest.TempPathFactory,
    results: tuple[float, float, float],
    inner_lr: float,
    hardware: str,
    commit: str,
) -> None:
    trial = dataclasses.replace(
        sweep.trials[0],
        value=results[0],
        val_interval=results[1],
        seconds_per_step=results[2],
        config=RunConfig(learner=LearnerConfig(inner_lr=inner_lr)),
        hardware=hardware,
        commit=commit,
    )
    only = dataclasses.replace(sweep, trials=(trial,))
    (run,) = exported(only, 1, tmp_path_factory.getbasetemp() / "any.yaml")
    assert run == export.best_runs(only, 1).runs[0]


def test_a_run_without_a_measured_step_is_exported(storage: Path, tmp_path: Path) -> None:
    single = read_sweep(default_uri(storage), "single")
    (run,) = exported(single, 1, tmp_path / "best.yaml")
    assert run.results.peak_memory_bytes is None


def test_keys_keep_their_order_under_a_header(sweep: Sweep, tmp_path: Path) -> None:
    path = tmp_path / "my best.yaml"
    command = ["python", "-m", "analysis", "export", "mixed", "--out", "my best.yaml"]
    export.write(export.best_runs(sweep, 1), sweep, path, command)
    lines = path.read_text().splitlines()
    assert lines[0] == ("# The best 1 of 10 explore and search trials of mixed-60steps-seed0,")
    assert lines[1] == "# by accuracy on the validation tasks."
    assert lines[2].endswith("python -m analysis export mixed --out 'my best.yaml'")
    assert lines[3].endswith("python -m memmeta train 'my best.yaml' --rank 1")
    assert lines[4:9] == ["study: mixed", "runs:", "- config:", "    data:", "      name: glyphs"]


def test_without_a_complete_trial_there_is_nothing_to_export(storage: Path) -> None:
    sweep = read_sweep(default_uri(storage), "mixed-60steps-seed1")
    expected = r"no complete explore or search trial to export \(1 diverged\)"
    with pytest.raises(InputError, match=expected):
        export.best_runs(sweep, 3)


def test_of_a_grid_nothing_is_the_best(storage: Path) -> None:
    sweep = read_sweep(default_uri(storage), "factorial")
    with pytest.raises(InputError, match=r"no explore or search trials to export \(2 grid\)"):
        export.best_runs(sweep, 3)


def test_fresh_seeds_are_told_of_the_run_that_they_confirm(sweep: Sweep, tmp_path: Path) -> None:
    best, second, third = (run.results for run in exported(sweep, 3, tmp_path / "best.yaml"))
    assert best.confirmed == Confirmed(seeds=[1, 2], val=0.78125, test=0.53125)
    assert second.confirmed == Confirmed(seeds=[1], val=0.7, test=0.6)
    assert third.confirmed is None


def test_a_failed_write_leaves_the_old_file(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "best.yaml"
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left"):
        exported(sweep, 1, path)
    assert [file.name for file in tmp_path.iterdir()] == ["best.yaml"]
    assert path.read_text() == "old"


@pytest.mark.parametrize("name", [".", "file/best.yaml", "file/deeper/best.yaml"])
def test_a_place_that_cannot_be_written_is_named(sweep: Sweep, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        exported(sweep, 1, tmp_path / name)
