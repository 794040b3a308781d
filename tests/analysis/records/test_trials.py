import dataclasses
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from analysis.records.store import attach, find_runs
from analysis.records.trials import Trial, read_sweep
from memmeta.errors import InputError
from sweeps.engine.stores.masking import without_credentials
from sweeps.engine.stores.store import default_uri
from sweeps.engine.study.outcome import TAGS
from tests.analysis.stand_ins import (
    BEST,
    FACTS,
    INTERVAL,
    LOST,
    MEASURED,
    driven,
    result,
    run_config,
    study,
)
from tests.mlflow_server import MlflowServer


@pytest.fixture(scope="session")
def uri(storage: Path) -> str:
    return default_uri(storage)


def test_a_trial_is_read_as_it_was_reported(uri: str) -> None:
    best = read_sweep(uri, "mixed").trials[0]
    config = run_config(**BEST)
    (run,) = find_runs(uri, f"tags.`memmeta.trial_key` = '{config.key}'")
    assert best == Trial(
        stage="explore",
        index=1,
        run_name="explore 001",
        status="complete",
        message=None,
        key=config.key,
        config=config,
        value=2 / 3,
        val_interval=INTERVAL,
        test_value=None,
        test_interval=None,
        run_id=run.info.run_id,
        parent_run_id=run.data.tags[TAGS.parent],
        **MEASURED,
        **FACTS,
    )


def test_trials_are_ordered_by_stage(uri: str) -> None:
    sweep = read_sweep(uri, "mixed")
    assert [(trial.run_name, trial.status) for trial in sweep.trials] == [
        ("explore 001", "complete"),
        ("search 000", "complete"),
        ("explore 000", "complete"),
        ("search 001", "pruned"),
        ("explore 002", "diverged"),
        ("explore 003", "out_of_memory"),
        ("explore 007", "running"),
        ("explore 004", "interrupted"),
        ("explore 005", "interrupted"),
        ("explore 006", "failed"),
        ("confirm 000", "complete"),
        ("confirm 001", "complete"),
        ("confirm 002", "diverged"),
        ("confirm 003", "complete"),
        ("grid 000", "complete"),
        ("grid 001", "complete"),
    ]
    assert sweep.ranking == sweep.trials[:3]
    assert sweep.trials_in("confirm", "grid") == sweep.trials[10:]


def test_only_candidates_are_ranked(uri: str) -> None:
    sweep = read_sweep(uri, "mixed")
    better = [trial for trial in sweep.trials if (trial.value or 0) > sweep.ranking[0].value]
    assert {trial.stage for trial in better} == {"explore", "search", "confirm", "grid"}
    assert not set(better) & set(sweep.ranking)


def test_a_grid_has_no_ranking(uri: str) -> None:
    sweep = read_sweep(uri, "factorial")
    assert [trial.index for trial in sweep.trials] == [0, 1]
    assert sweep.ranking == ()


def test_confirm_trials_have_a_test_value(uri: str) -> None:
    trials = read_sweep(uri, "mixed").trials_in("confirm")
    assert [(trial.config.seed, trial.value, trial.test_value) for trial in trials] == [
        (1, 0.75, 0.5),
        (2, 0.8125, 0.5625),
        (3, None, None),
        (1, 0.7, 0.6),
    ]
    assert trials[0].test_interval == INTERVAL


def test_failed_trials_have_a_message(uri: str) -> None:
    messages = {trial.run_name: trial.message for trial in read_sweep(uri, "mixed").trials}
    assert {name: message for name, message in messages.items() if message} == {
        "explore 002": "loss is nan",
        "explore 003": "45 GiB",
        "explore 006": LOST,
        "confirm 002": "loss is inf",
    }


def test_missing_results_are_none(uri: str) -> None:
    trials = {trial.run_name: trial for trial in read_sweep(uri, "mixed").trials}
    too_big, silent = trials["explore 003"], trials["explore 005"]
    assert too_big.predicted_memory_bytes == MEASURED["predicted_memory_bytes"]
    assert (silent.predicted_memory_bytes, silent.reserved_memory_bytes) == (None, None)
    assert (too_big.value, too_big.peak_memory_bytes, too_big.threads) == (None, None, 2)
    assert (silent.value, silent.seconds_per_step) == (None, None)
    assert (silent.commit, silent.hardware, silent.threads, silent.data_digest) == (None,) * 4


def test_a_study_selects_its_latest_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order does not depend on the clocks of the drivers."""
    uri = default_uri(tmp_path)
    now, behind = time.time, 0
    monkeypatch.setattr(time, "time", lambda: now() - behind)
    for index, seed in enumerate((0, 1, 0, 1)):
        with driven(tmp_path / f"seed {seed}", "again", seed, uri, "again") as driver:
            driver.trial("explore", index, {}, result("complete", 0.5))
        assert read_sweep(uri, "again").name == f"again-60steps-seed{seed}"
        behind += 3600


def test_other_sweeps_of_a_study_are_named(uri: str) -> None:
    sweep = read_sweep(uri, "mixed")
    assert (sweep.study, sweep.name) == ("mixed", "mixed-60steps-seed0")
    assert sweep.alternatives == ("mixed-60steps-seed1",)


def test_newer_sweeps_without_a_result_are_passed_over(tmp_path: Path) -> None:
    uri = default_uri(tmp_path)
    interrupted = result("interrupted")
    for seed, told in enumerate((result("complete", 0.5), interrupted, result("running", 0.3))):
        with driven(tmp_path / f"seed {seed}", "again", seed, uri, "again") as driver:
            driver.trial("explore", 0, {}, told)
    sweep = read_sweep(uri, "again")
    empty = ("again-60steps-seed1", "again-60steps-seed2")
    assert sweep.name == "again-60steps-seed0"
    assert sweep.alternatives == sweep.without_results == empty
    assert len(sweep.trials) == 1
    for name in empty:
        named = read_sweep(uri, name)
        assert (named.name, named.without_results) == (name, ())


def test_without_any_result_the_latest_sweep_is_used(tmp_path: Path) -> None:
    uri = default_uri(tmp_path)
    for seed in range(2):
        with driven(tmp_path / f"seed {seed}", "again", seed, uri, "again") as driver:
            driver.trial("explore", 0, {}, result("running", 0.3))
    sweep = read_sweep(uri, "again")
    assert (sweep.name, sweep.without_results) == ("again-60steps-seed1", ())


def test_a_sweep_can_be_named_in_full(uri: str) -> None:
    sweep = read_sweep(uri, "mixed-60steps-seed1")
    assert sweep.alternatives == ()
    assert [trial.status for trial in sweep.trials] == ["diverged"]


def test_sweeps_with_the_same_name_can_both_be_read(uri: str) -> None:
    latest = read_sweep(uri, "single")
    (other,) = latest.alternatives
    run_id = re.fullmatch(r"(\w+) \(single-60steps-seed0\)", other)[1]
    earlier = read_sweep(uri, run_id)
    assert earlier.alternatives == ()
    assert earlier.trials[0].parent_run_id == run_id != latest.trials[0].parent_run_id


def test_all_pages_are_read(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read_sweep(uri, "mixed")
    for name in ("search_runs", "search_experiments"):
        search = getattr(MlflowClient, name)
        monkeypatch.setattr(
            MlflowClient, name, lambda *args, s=search, **more: s(*args, **more, max_results=1)
        )
    assert read_sweep(uri, "mixed") == whole


def test_the_error_for_an_unknown_study_lists_the_known_ones(uri: str) -> None:
    expected = "mixed (sweeps: mixed-60steps-seed1, mixed-60steps-seed0); single (sweeps: "
    with pytest.raises(InputError, match=re.escape(expected)):
        read_sweep(uri, "it's mixed")


def test_an_invalid_config_is_named(storage: Path, tmp_path: Path) -> None:
    shutil.copy(storage / "mlflow.db", tmp_path)
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute(
            "UPDATE tags SET value = replace(value, 'ridge', 'rigde') WHERE key = 'memmeta.config'"
        )
    with pytest.raises(InputError, match=r"explore 000 \(MLflow run \w+\): unknown key .*rigde"):
        read_sweep(default_uri(tmp_path), "single")


@pytest.mark.parametrize("tag", ["memmeta.config", "memmeta.index", "memmeta.settings"])
def test_a_changed_tag_is_a_one_line_error(storage: Path, tmp_path: Path, tag: str) -> None:
    shutil.copy(storage / "mlflow.db", tmp_path)
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("UPDATE tags SET value = '{' WHERE key = ?", [tag])
    with pytest.raises(InputError, match=r"\(MLflow run \w+\): a tag of memmeta was changed"):
        read_sweep(default_uri(tmp_path), "single")


def test_a_missing_store_is_not_created(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="no such MLflow store"):
            read_sweep(default_uri(folder), "mixed")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"not a database" * 100])
def test_a_file_that_is_not_a_store_is_unchanged(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mlflow.db"
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be opened as an MLflow store"):
        read_sweep(default_uri(tmp_path), "mixed")
    assert path.read_bytes() == content


@pytest.mark.parametrize("uri", ["localhost:5000", "runs/mlflow.db", "foo://bar"])
def test_an_invalid_store_address_is_a_one_line_error(uri: str) -> None:
    with pytest.raises(InputError, match="cannot be opened as an MLflow store") as raised:
        read_sweep(uri, "mixed")
    assert "\n" not in raised.value.message


def test_an_unreachable_server_fails_soon() -> None:
    begun = time.monotonic()
    with pytest.raises(InputError, match=r"127\.0\.0\.1:9") as raised:
        read_sweep("http://ada:secret@127.0.0.1:9", "mixed")
    assert time.monotonic() - begun < 20
    assert "secret" not in raised.value.message


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://ada:se@cret@host:5000/x", "https://host:5000/x"),
        ("postgresql://ada@host/db", "postgresql://host/db"),
        ("sqlite:////home/a@b/mlflow.db", "sqlite:////home/a@b/mlflow.db"),
        ("sqlite:////a@b/mlflow.db", "sqlite:////a@b/mlflow.db"),
    ],
)
def test_credentials_are_removed(address: str, shown: str) -> None:
    assert without_credentials(f"at {address}: no") == f"at {shown}: no"


def test_nothing_imports_ray(uri: str) -> None:
    code = (
        "import sys, analysis.__main__, analysis.records.trials\n"
        f"analysis.records.trials.read_sweep({uri!r}, 'mixed')\n"
        "sys.exit(', '.join({'ray', 'optuna'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_a_server_gives_the_same_trials_as_its_file(storage: Path, tmp_path: Path) -> None:
    home = tmp_path / "it's a?b %2F#%20 $(c)"
    home.mkdir()
    shutil.copy(storage / "mlflow.db", home)
    with MlflowServer(home) as server:
        for name in ("mixed", "mixed-60steps-seed1", "single"):
            expected = read_sweep(default_uri(home), name)
            assert read_sweep(server.address, name) == expected
        with pytest.raises(InputError, match=f"no study or sweep nope in {server.address}"):
            read_sweep(server.address, "nope")
        # The files of a run that started through the server are stored there, too.
        client = MlflowClient(server.address)
        run_id = client.create_run(client.create_experiment("remote")).info.run_id
        (tmp_path / "figures").mkdir()
        figure = tmp_path / "figures" / "a.png"
        figure.write_bytes(b"a picture")
        attach(server.address, run_id, tmp_path, [figure])
        copy = client.download_artifacts(run_id, "report/figures/a.png", str(storage))
        assert Path(copy).read_bytes() == b"a picture"


def test_trials_over_the_memory_limit_are_not_ranked(uri: str) -> None:
    sweep = read_sweep(uri, "mixed")
    peaks = [trial.peak_memory_bytes for trial in sweep.ranking]
    assert peaks
    predicted = [dataclasses.replace(trial, peak_memory_bytes=None) for trial in sweep.ranking]
    for stage in ("search", "confirm"):
        for limit, left in ((max(peaks) + 2, sweep.ranking), (min(peaks) - 1, ())):
            limited = dataclasses.replace(sweep, settings={stage: {"memory_limit": limit}})
            assert limited.ranking == left
            unmeasured = dataclasses.replace(limited, trials=tuple(predicted))
            assert len(unmeasured.ranking) == len(left)


def test_the_space_is_that_of_the_study(uri: str) -> None:
    assert read_sweep(uri, "mixed").space == study("mixed").space


def test_device_hours_count_gpus_or_cores(uri: str) -> None:
    best = read_sweep(uri, "mixed").trials[0]
    assert best.device_hours == pytest.approx(0.25 * 100 / 3 / 3600)
    assert dataclasses.replace(best, gpus=0.0).device_hours == pytest.approx(2 * 100 / 3 / 3600)
    assert dataclasses.replace(best, seconds=None).device_hours is None
