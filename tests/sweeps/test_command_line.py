"""The command line: accepted and refused options, before anything runs."""

import os
import re
import shlex
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from sweeps.engine.command_line import _command
from sweeps.engine.display.summary import _commands, _pages
from sweeps.engine.display.timing import Timing
from sweeps.engine.options import Options
from sweeps.engine.run import _sweep_folder
from sweeps.engine.stores.store import default_uri
from tests.sweeps.tiny import STUDY


def invoke(*words, study=STUDY):
    return CliRunner().invoke(_command, list(map(str, words)), obj=study)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--iterations", "1", "--tasks", "1"], "give either --iterations or --tasks"),
        (["--stage", "grid"], "there is no grid"),
        (["--grid", "inner_steps=1,5", "--stage", "explore"], "--grid is not for --stage explore"),
        (["--grid", "inner_steps=1,5", "--trials", "4"], "determines the number of trials"),
        (["--grid", "inner_steps"], "inner_steps"),
        (["--tune", "inner_lr=0.1,1"], "tuned needs a grid"),
        (["--grid", "ridge=1", "--tune", "inner_lr"], "--tune 'inner_lr'"),
        (["--grid", "inner_stepss=1"], "inner_stepss"),
        (["--grid", "inner_steps=2020-13-45"], "FIELD=VALUE,VALUE,... is accepted"),
        (["--stage", "confirm", "--fresh"], "nothing to confirm yet"),
        (["--grid", "ridge=1", "--grid", "ridge=2"], "--grid 'ridge=2': ridge is given twice"),
        (["--grid", "ridge=1", "--sampler", "gp"], "--sampler is not for --stage grid"),
        (["--grid", "ridge=1", "--memory-limit", "1GiB"], "--memory-limit is not for --stage grid"),
        (["--grid", "ridge=1", "--evaluate-on", "fc100"], "--evaluate-on is not for --stage grid"),
        (["--evaluate-on", "fc10"], "did you mean fc100"),
        (["--evaluate-on", "glyphs"], "glyphs is scored once"),
        (["--objective", "speed"], "accepted are accuracy and accuracy,memory"),
        (["--objective", "accuracy,memory", "--asha"], "asha goes with one objective"),
        (["--memory-limit", "much"], "'much': bytes above 0 are accepted"),
        (["--sampler", "magic"], "sampler"),
        (["--stage", "sometimes"], "'sometimes' is not one of"),
        (["--price-per-hour", "nan"], "nan is not a finite number"),
        (["--price-per-hour", "inf"], "inf is not a finite number"),
    ],
)
def test_invalid_options_are_reported_with_exit_code_2(options, said):
    result = invoke(*options)
    assert result.exit_code == 2
    assert said in result.output.replace("\n", " ")
    assert "Traceback" not in result.output


def test_tune_is_refused_for_other_stages():
    study = STUDY.changed(grid={"cg_steps": [1]})
    result = invoke("--tune", "inner_lr=0.1,1", "--stage", "all", study=study)
    assert (result.exit_code, "--tune is not for --stage all" in result.output) == (2, True)


@pytest.mark.parametrize("words", [["--dry-run"], []])
@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ({"ways": 10_000}, "glyphs, split train: 10000 ways, but"),
        ({"eval_queries": 10_000}, "glyphs, split val: "),
    ],
)
def test_impossible_tasks_are_refused_before_files_are_created(
    tmp_path, data_root, words, shape, said
):
    study = STUDY.changed(data=STUDY.data.model_copy(update=shape))
    places = ["--storage", tmp_path / "runs", "--data-root", data_root]
    result = invoke(*words, *places, study=study)
    assert (result.exit_code, said in result.output) == (2, True)
    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has no such names")
def test_a_storage_path_that_is_not_utf_8_is_refused_in_one_line(tmp_path, data_root):
    storage = tmp_path / os.fsdecode(b"caf\xe9")
    result = invoke("--storage", storage, "--data-root", data_root)
    assert (result.exit_code, "the path is not UTF-8" in result.output) == (2, True)


def test_a_plan_with_too_many_cpus_is_refused(data_root, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "local")
    result = invoke("--dry-run", "--cpus-per-trial", "1000", "--data-root", data_root)
    assert (result.exit_code, "1000 CPUs per trial: this machine has" in result.output) == (2, True)


def test_a_plan_is_timed_on_configs_that_do_not_diverge(data_root, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "local")
    study = STUDY.changed(grid={"inner_lr": [1e30, 0.1]}, seeds=1)
    result = invoke("--dry-run", "--data-root", data_root, study=study)
    assert (result.exit_code, "predicted: " in result.output) == (0, True)
    study = STUDY.changed(grid={"inner_lr": [1e30]}, seeds=1)
    result = invoke("--dry-run", "--data-root", data_root, study=study)
    assert (result.exit_code, "all of 1 configs" in result.output) == (2, True)


def test_the_price_counts_every_cpu_of_a_trial(data_root, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "local")
    monkeypatch.setattr("sweeps.engine.display.plan.timing", lambda *_: Timing(3600.0, 0.0, 0.0))
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    words = ["--dry-run", "--stage", "confirm", "--trials", "100", "--price-per-hour", "1"]
    result = invoke(*words, "--cpus-per-trial", "2", "--data-root", data_root)
    assert "15 trials" in result.output
    tasks = 15 * STUDY.training.iterations * STUDY.learner.task_batch
    price = re.search(r"price: ([\d.]+)", result.output)[1]
    assert float(price) == 2 * tasks


def test_fresh_starts_a_new_version_and_the_latest_version_continues(tmp_path):
    names = [
        _sweep_folder(tmp_path, "s-9tasks-seed0", fresh).name
        for fresh in (False, False, True, False, True, False)
    ]
    expected = ["s-9tasks-seed0"] * 2 + ["s-9tasks-seed0-v2"] * 2 + ["s-9tasks-seed0-v3"] * 2
    assert names == expected


def commands(storage, tracking_uri):
    options = Options(
        stage="all", data_root=storage, cache=None, seed=0, storage=storage, fresh=False,
        ledger=None,
        max_concurrent=None, cpus_per_trial=1, memory_budget=None, tracking_uri=tracking_uri,
        experiment="s",
    )  # fmt: skip
    return list(_commands(options, "s", "--top 3"))


def test_printed_commands_can_be_pasted_into_a_shell():
    storage = Path("/tmp/it's a $(x) #1 & 50% ?")
    *_, shown = commands(storage, default_uri(storage))
    assert shlex.split(shown) == ["mlflow", "ui", "--backend-store-uri", default_uri(storage)]
    for command in commands(storage, default_uri(storage))[:2]:
        assert shlex.split(command)[-2:] == ["--storage", str(storage)]


def test_the_summary_names_a_tracking_server():
    *others, shown = commands(Path("/s"), "http://ada:hunter2@host:5000")
    assert shown == "http://host:5000"
    assert all(command.endswith("--tracking-uri http://host:5000") for command in others)


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("sqlite:////s/mlflow.db", "http://127.0.0.1:5000"),
        ("postgresql://ada:hunter2@host/db", "http://127.0.0.1:5000"),
        ("http://ada:hunter2@host:5000/", "http://host:5000"),
        ("https://host/mlflow", "https://host/mlflow"),
    ],
)
def test_the_summary_links_to_the_pages_of_a_sweep(uri, address):
    links = [line.split()[-1] for line in _pages(uri, ("#/trials", "#/chart"))]
    assert links == [f"{address}/#/trials", f"{address}/#/chart"]


def test_stores_without_pages_are_not_linked():
    assert list(_pages("databricks", ("#/trials", "#/chart"))) == []


def test_the_ledger_url_can_be_in_the_environment(tmp_path, data_root, monkeypatch):
    monkeypatch.setenv("MEMMETA_LEDGER", "nonsense+x://ada:hunter2/3@host/db?pwd=hunter2")
    result = invoke("--storage", tmp_path, "--data-root", data_root)
    assert result.exit_code == 2
    assert "nonsense+x://host/db?***: cannot be opened as the record" in result.output
    assert "hunter2" not in result.output
