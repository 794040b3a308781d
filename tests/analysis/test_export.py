import dataclasses
import json
import os
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from analysis import export
from analysis.export import Selection
from analysis.records.trials import Sweep, read_sweep
from memmeta.config import Before, LearnerConfig, RunConfig
from memmeta.errors import InputError
from memmeta.exported import Confirmed, ExportedRun, read_run
from sweeps.engine.stores.store import default_uri
from tests.analysis import made_up
from tests.analysis.made_up import MIB


@pytest.fixture(scope="session")
def sweep(storage: Path) -> Sweep:
    return read_sweep(default_uri(storage), "mixed")


def exported(sweep: Sweep, top: int, path: Path) -> list[ExportedRun]:
    selection = Selection(top)
    runs = export.best_runs(sweep, selection)
    export.write(runs, sweep, selection, path, ["memmeta", "export"])
    return [read_run(path, rank) for rank in range(1, min(top, len(sweep.ranking)) + 1)]


@pytest.mark.parametrize("name", ["best.yaml", "best.yml", "best.json", "best.JSON"])
def test_a_written_file_is_read_back(sweep: Sweep, tmp_path: Path, name: str) -> None:
    runs = exported(sweep, 2, tmp_path / name)
    assert runs == export.best_runs(sweep, Selection(2)).runs
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
    suffix=st.sampled_from(export.SUFFIXES),
)
def test_numbers_and_text_are_exact(
    sweep: Sweep,
    tmp_path_factory: pytest.TempPathFactory,
    results: tuple[float, float, float],
    inner_lr: float,
    hardware: str,
    commit: str,
    suffix: str,
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
    (run,) = exported(only, 1, tmp_path_factory.getbasetemp() / f"any{suffix}")
    assert run == export.best_runs(only, Selection(1)).runs[0]


def test_a_run_without_a_measured_step_is_exported(storage: Path, tmp_path: Path) -> None:
    single = read_sweep(default_uri(storage), "single")
    (run,) = exported(single, 1, tmp_path / "best.yaml")
    assert run.results.peak_memory_bytes is None


def test_keys_keep_their_order_under_a_header(sweep: Sweep, tmp_path: Path) -> None:
    path = tmp_path / "my best.yaml"
    command = ["memmeta", "export", "mixed", "--out", "my best.yaml"]
    selection = Selection(1)
    export.write(export.best_runs(sweep, selection), sweep, selection, path, command)
    lines = path.read_text().splitlines()
    assert lines[0].startswith(
        "# The best 1 of the configs of 10 explore and search trials of mixed-60"
    )
    assert lines[1] == "# by accuracy on the validation tasks."
    assert lines[2].endswith("memmeta export mixed --out 'my best.yaml'")
    assert lines[3].endswith("memmeta train 'my best.yaml' --rank 1")
    assert lines[5:10] == ["study: mixed", "runs:", "- config:", "    data:", "      name: glyphs"]


@pytest.mark.parametrize("suffix", export.SUFFIXES)
def test_a_name_with_line_breaks_does_not_break_the_file(
    sweep: Sweep, tmp_path: Path, suffix: str
) -> None:
    (run,) = exported(sweep, 1, tmp_path / f"best\nruns: []\n{suffix}")
    assert run.config == sweep.ranking[0].config


def test_json_contains_the_header(sweep: Sweep, tmp_path: Path) -> None:
    for name in ("best.json", "best.yaml"):
        exported(sweep, 2, tmp_path / name)
    values = json.loads((tmp_path / "best.json").read_text())
    header = [line for line in (tmp_path / "best.yaml").read_text().splitlines() if line[0] == "#"]
    assert [f"# {line}".replace("best.json", "best.yaml") for line in values["about"]] == header
    assert len(values["runs"]) == 2


@pytest.mark.parametrize("name", ["best", "best.txt", "best.yaml.bak", ".json"])
def test_a_name_without_a_known_suffix_is_refused(sweep: Sweep, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"{name}: the name must end in .yaml, .yml")):
        exported(sweep, 1, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", r"not a JSON file \(line 1\)"),
        ('{"runs": [],\n"study" "s"}', r"not a JSON file \(line 2\)"),
        ("[" * 100_000, "not a JSON file"),
        ('{"study": "s", "runs": [], "study": "t"}', "the key 'study' is repeated"),
        ('{"study": "s", "runs": []}', "no run of rank 1: it has 0"),
        ('{"study": "s", "version": 99, "runs": []}', "written by a later version"),
        ('{"study": "s", "version": "new", "runs": []}', "version: a whole number"),
        ('{"seed": 0, "nonsense": 1}', "unknown key nonsense"),
    ],
)
def test_invalid_json_is_a_one_line_error(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "best.json"
    with pytest.raises(InputError, match=r"best.json: cannot be read"):
        read_run(path)
    path.write_text(content)
    with pytest.raises(InputError, match=said) as refusal:
        read_run(path)
    assert "\n" not in refusal.value.message


def test_fields_that_a_record_lacks_have_former_defaults(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if cg_steps were newer than this record and earlier runs had used 3.
    monkeypatch.setattr(LearnerConfig.model_fields["cg_steps"], "metadata", [Before(3)])
    for name, write, read in (
        ("best.yaml", yaml.safe_dump, yaml.safe_load),
        ("best.json", json.dumps, json.loads),
    ):
        path = tmp_path / name
        exported(sweep, 1, path)
        values = read(path.read_text())
        del values["runs"][0]["config"]["learner"]["cg_steps"]
        path.write_text(write(values))
        assert read_run(path).config.learner.cg_steps == 3
        # A config written by hand gets today's default.
        del values["runs"][0]["provenance"]
        path.write_text(write(values))
        assert read_run(path).config.learner.cg_steps == LearnerConfig().cg_steps


def test_a_sweep_without_complete_trials_is_refused(storage: Path) -> None:
    sweep = read_sweep(default_uri(storage), "mixed-60steps-seed1")
    expected = r"no complete explore or search trial to export \(1 diverged\)"
    with pytest.raises(InputError, match=expected):
        export.best_runs(sweep, Selection(3))


def test_a_grid_has_no_best_config(storage: Path) -> None:
    sweep = read_sweep(default_uri(storage), "factorial")
    with pytest.raises(InputError, match=r"no explore or search trials to export \(2 grid\)"):
        export.best_runs(sweep, Selection(3))


def test_confirmed_runs_have_results_of_fresh_seeds(sweep: Sweep, tmp_path: Path) -> None:
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


@pytest.mark.parametrize("name", ["folder.yaml", "file/best.yaml", "file/deeper/best.yaml"])
def test_an_unwritable_file_is_named(sweep: Sweep, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        exported(sweep, 1, tmp_path / name)


def test_every_run_has_a_prediction_for_a_fresh_seed(sweep: Sweep, tmp_path: Path) -> None:
    best, second, third = (run.results for run in exported(sweep, 3, tmp_path / "best.yaml"))
    # Confirmed values: 0.75 and 0.8125 for the first config, 0.7 for the second.
    assert (best.fresh_seed.expected, best.fresh_seed.seeds) == (0.78125, 2)
    assert (second.fresh_seed.expected, second.fresh_seed.seeds) == (0.7, 1)
    overstated = ((2 / 3 - 0.78125) + (0.64 - 0.7)) / 2
    assert third.fresh_seed.expected == pytest.approx(0.6 - overstated)
    for results in (best, second, third):
        assert 0 <= results.fresh_seed.low < results.fresh_seed.expected
        assert results.fresh_seed.expected < results.fresh_seed.high <= 1


def test_a_file_without_predictions_is_read(sweep: Sweep, tmp_path: Path) -> None:
    path = tmp_path / "best.yaml"
    (run,) = exported(sweep, 1, path)
    values = yaml.safe_load(path.read_text())
    del values["runs"][0]["results"]["fresh_seed"]
    path.write_text(yaml.safe_dump(values))
    results = run.results.model_copy(update={"fresh_seed": None})
    assert read_run(path) == run.model_copy(update={"results": results})


def with_peaks(*trials: tuple[float, int | None]) -> Sweep:
    """Complete trials with these accuracies and peaks in MiB."""
    return made_up.sweep(
        made_up.trial(
            "search",
            index,
            value,
            learner={"inner_steps": index},
            peak_memory_bytes=None if peak is None else peak * MIB,
        )
        for index, (value, peak) in enumerate(trials)
    )


TRADE = with_peaks((0.9, 100), (0.8, 50), (0.85, 120), (0.6, 20), (0.7, 60), (0.95, None))


def steps(sweep: Sweep, selection: Selection) -> list[int]:
    return [run.config.learner.inner_steps for run in export.best_runs(sweep, selection).runs]


def test_the_best_within_a_memory_limit_are_selected() -> None:
    assert steps(TRADE, Selection()) == [5, 0, 2, 1, 4, 3]
    assert steps(TRADE, Selection(max_memory=60 * MIB)) == [1, 4, 3]
    assert steps(TRADE, Selection(top=1, max_memory=60 * MIB - 1)) == [1]


def test_the_pareto_front_is_sorted_from_the_best() -> None:
    assert steps(TRADE, Selection(pareto=True)) == [0, 1, 3]
    assert steps(TRADE, Selection(top=2, pareto=True)) == [0, 1]
    assert steps(TRADE, Selection(pareto=True, max_memory=99 * MIB)) == [1, 3]


@given(
    st.lists(st.tuples(st.integers(1, 4), st.sampled_from([20, 50, 100]), finite), min_size=1),
    st.integers(1, 6),
    st.booleans(),
)
def test_a_repeated_config_is_exported_once(
    tries: list[tuple[int, int, float]], top: int, pareto: bool
) -> None:
    sweep = made_up.sweep(
        made_up.trial("search", n, value, learner={"inner_steps": k}, peak_memory_bytes=peak * MIB)
        for n, (k, peak, value) in enumerate(tries)
    )
    found = steps(sweep, Selection(top, pareto=pareto))
    assert len(set(found)) == len(found)
    if not pareto:
        best = {k: max(value for other, _, value in tries if other == k) for k, _, _ in tries}
        assert len(found) == min(top, len(best))
        assert [best[k] for k in found] == sorted(best.values(), reverse=True)[:top]


def test_a_limit_below_every_trial_names_the_smallest_peak() -> None:
    expected = r"within 20,971,519 bytes \(20.0 MiB\).*the smallest is 20,971,520 bytes"
    with pytest.raises(InputError, match=expected):
        export.best_runs(TRADE, Selection(max_memory=20 * MIB - 1))


@pytest.mark.parametrize("selection", [Selection(max_memory=MIB), Selection(pareto=True)])
def test_trials_without_a_measured_peak_exceed_every_limit(selection: Selection) -> None:
    with pytest.raises(InputError, match="no trial to export has a measured peak"):
        export.best_runs(with_peaks((0.9, None)), selection)


def test_the_header_states_the_selection(tmp_path: Path) -> None:
    path, selection = tmp_path / "best.yaml", Selection(None, 100 * MIB, True)
    export.write(export.best_runs(TRADE, selection), TRADE, selection, path, ["python"])
    assert path.read_text().splitlines()[:5] == [
        "# The best 3 of the configs of 6 explore and search trials of made_up-100tasks-seed0,",
        "# by accuracy on the validation tasks.",
        "# Only trials on the Pareto front with peak memory.",
        "# Only trials with a peak memory of at most 104,857,600 bytes (100.0 MiB).",
        "# Written by: python",
    ]
