import json
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from mlflow import MlflowClient
from rich.console import Console

from analysis.__main__ import main
from analysis.display import trial_list
from analysis.records.trial_table import write_trials
from analysis.records.trials import read_sweep
from memmeta.exported import read_run
from sweeps.engine.stores.store import default_uri
from tests import ROOT
from tests.analysis import made_up
from tests.analysis.made_up import MIB
from tests.analysis.stand_ins import INTERVAL, LOST, MEASURED


def invoke(*args: object, columns: int = 80) -> Result:
    return CliRunner().invoke(main, list(map(str, args)), env={"COLUMNS": str(columns)})


def blocks(output: str) -> dict[str, list[str]]:
    """The lines of the output by block."""
    parts = [part.splitlines() for part in output.split("\n\n")[1:-1]]
    return {lines[0].partition(":")[0]: lines for lines in parts}


def test_the_table_fits_eighty_columns(storage: Path) -> None:
    result = invoke("trials", "mixed", "--storage", storage)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "mixed-60steps-seed0: 16 trials"
    ranked = blocks(result.stdout)["explore and search"]
    first, second, third = (line for line in ranked if "±" in line)
    assert first.split() == [
        "1", "explore", "001", "66.7", "±", "1.2", "78.2", "0.3",
        "0.01", "2", "0.0333", "20", "0.001", "8",
    ]  # fmt: skip
    assert second.split()[:7] == ["2", "search", "000", "64.0", "±", "1.2", "78.2"]
    assert third.split()[:3] == ["3", "explore", "000"]
    assert [line.split()[:4] for line in ranked if line.lstrip().startswith("–")] == [
        ["–", "search", "001", "pruned"],
        ["–", "explore", "002", "diverged"],
        ["–", "explore", "003", "out"],
        ["–", "explore", "007", "running"],
        ["–", "explore", "004", "interrupted"],
        ["–", "explore", "005", "interrupted"],
        ["–", "explore", "006", "failed"],
        ["–", "no", "rank:", "1"],
    ]
    explained = " ".join(" ".join(ranked).split()).partition("no rank: ")[2]
    assert explained.startswith(
        "1 pruned, 1 diverged, 1 out of memory, 1 running, 2 interrupted, 1 failed"
    )


@pytest.mark.parametrize("name", ["MEMMETA_STORAGE", "MLFLOW_TRACKING_URI"])
def test_storage_is_read_from_the_environment(
    storage: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = storage if name == "MEMMETA_STORAGE" else default_uri(storage)
    monkeypatch.setenv(name, str(place))
    found = invoke("trials", "mixed")
    assert found.stdout == invoke("trials", "mixed", "--storage", storage).stdout


def test_unranked_stages_have_separate_blocks(storage: Path) -> None:
    found = blocks(invoke("trials", "mixed", "--storage", storage).stdout)
    assert list(found) == ["explore and search", "confirm", "grid"]
    assert [found[title][0] for title in found] == [
        "explore and search: 3 of 10 trials complete",
        "confirm: 3 of 4 trials complete",
        "grid: 2 of 2 trials complete",
    ]
    trials = [line.split() for line in found["confirm"] if line.startswith("confirm 0")]
    assert trials[0][:8] == ["confirm", "000", "75.0", "±", "1.2", "50.0", "±", "1.2"]
    assert trials[2][:4] == ["confirm", "002", "diverged", "78.2"]
    assert not any("test accuracy" in line for line in found["grid"])
    assert "the same in these: seed 0" in found["explore and search"]


def test_a_grid_is_listed_in_its_order(storage: Path) -> None:
    output = invoke("trials", "factorial", "--storage", storage).stdout
    assert list(blocks(output)) == ["grid"]
    lines = [line.split() for line in output.splitlines() if "±" in line]
    assert [line[:3] for line in lines] == [["grid", "000", "85.0"], ["grid", "001", "95.0"]]
    assert [line[-1] for line in lines] == ["1", "5"]
    rows = json.loads(invoke("trials", "factorial", "--json", "--storage", storage).stdout)
    assert [(row["stage"], row["index"], row["rank"]) for row in rows] == [
        ("grid", 0, None),
        ("grid", 1, None),
    ]


def test_constant_settings_are_listed_below_the_table(storage: Path) -> None:
    table, _, same = invoke("trials", "mixed", "--storage", storage, columns=300).stdout.partition(
        "the same in all: "
    )
    for name in ("head linear", "dataset glyphs", "iterations 60", "val_tasks 50"):
        assert name in same
        assert name.split()[0] not in table


def test_no_number_is_cut_in_a_narrow_terminal(storage: Path) -> None:
    lines = invoke("trials", "mixed", "--storage", storage, columns=40).stdout.splitlines()
    assert max(map(len, lines)) <= 40
    assert "…" not in "".join(lines)
    words = {word for line in lines for word in line.split() if "explore 001" in line}
    assert {"66.7", "1.2", "78.2", "0.3", "0.0333"} <= words
    assert sum(line.split()[:3] == ["1", "explore", "001"] for line in lines) > 1


def test_a_single_trial_is_shown_as_a_table(storage: Path) -> None:
    result = invoke("trials", "single", "--storage", storage)
    assert "25.0 ± 1.2" in result.stdout
    assert "inner_lr 1, " in result.stdout.replace("\n", " ")


def test_json_is_flat_and_exact(storage: Path) -> None:
    rows = json.loads(invoke("trials", "mixed", "--json", "--storage", storage).stdout)
    assert [row["rank"] for row in rows] == [1, 2, 3, *[None] * 13]
    assert all(row.keys() == rows[0].keys() for row in rows)
    assert not any(isinstance(value, dict | list) for row in rows for value in row.values())
    best = rows[0]
    assert (best["val_accuracy"], best["peak_memory_bytes"]) == (2 / 3, 81_998_337)
    assert (best["inner_lr"], best["inner_steps"], best["dataset"]) == (0.1 / 3, 2, "glyphs")
    assert (best["sweep"], best["run_name"]) == ("mixed-60steps-seed0", "explore 001")
    assert (best["stage"], best["index"], best["test_accuracy"]) == ("explore", 1, None)
    assert {name: best[name] for name in MEASURED} == MEASURED
    (confirmed,) = (row for row in rows if row["run_name"] == "confirm 001")
    assert (confirmed["val_accuracy"], confirmed["test_accuracy"]) == (0.8125, 0.5625)
    assert confirmed["test_interval"] == INTERVAL
    (failed,) = (row for row in rows if row["status"] == "failed")
    assert failed["message"] == LOST


def test_a_setting_that_only_some_trials_have_is_a_column(
    storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = read_sweep(default_uri(storage), "factorial")
    first, second = sweep.trials
    learner = second.config.learner.model_copy(update={"chunk": 25})
    second = replace(second, config=second.config.model_copy(update={"learner": learner}))
    sweep = replace(sweep, trials=(first, second))
    assert [row["chunk"] for row in trial_list.rows(sweep)] == [None, 25]
    trial_list.show(Console(width=100), sweep)
    assert "     5     25" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("limit", "feasible", "reasons"),
    [
        (None, None, "1 diverged"),
        (50 * MIB, "2 of them feasible (peak memory at most 50.0 MiB)",
         "1 over the memory limit, 1 diverged"),
        (10 * MIB, "0 of them feasible", "3 over the memory limit, 1 diverged"),
    ],
)  # fmt: skip
def test_with_a_memory_limit_feasible_trials_are_counted(
    capsys: pytest.CaptureFixture[str], limit: int | None, feasible: str | None, reasons: str
) -> None:
    trials = [
        made_up.trial("search", n, 0.9 - n / 10, peak_memory_bytes=peak * MIB)
        for n, peak in enumerate((100, 50, 20))
    ]
    lost = made_up.trial("search", 3, None, status="diverged")
    trial_list.show(Console(width=100), made_up.sweep([*trials, lost], memory_limit=limit))
    output = capsys.readouterr().out
    heading = next(line for line in output.splitlines() if line.startswith("explore and search"))
    assert "3 of 4 trials complete" in heading
    assert heading.endswith("complete") if feasible is None else feasible in heading
    assert f"– no rank: {reasons}\n" in output


@pytest.mark.parametrize("flag", ["--json", "--tracking-uri"])
def test_other_sweeps_are_named_on_standard_error(storage: Path, flag: str) -> None:
    flags = [flag] if flag == "--json" else [flag, f"sqlite:///{storage}/mlflow.db"]
    result = invoke("trials", "mixed", "--storage", storage, *flags)
    (line,) = result.stderr.splitlines()
    assert line.startswith("mixed: using mixed-60steps-seed0;")
    assert line.endswith(": mixed-60steps-seed1")
    assert "seed1" not in result.stdout


def test_export_writes_a_file_to_train_from(storage: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "best.yaml"
    result = invoke("export", "mixed", "--storage", storage, "--top", 4, "--out", out)
    assert result.exit_code == 0
    assert "of mixed-60steps-seed0: only 3 different configs of explore and search" in result.stderr
    assert read_run(out, 3).results.val_accuracy == 0.6
    written_by = out.read_text().splitlines()[2]
    assert "export mixed-60steps-seed0 --top 4 --out" in written_by


def test_the_command_in_the_header_repeats_the_export(storage: Path, tmp_path: Path) -> None:
    out = tmp_path / "small ones.yaml"
    result = invoke(
        "export", "mixed", "--storage", storage, "--max-memory", "90MiB", "--pareto", "--out", out
    )
    assert result.exit_code == 0
    content = out.read_text()
    (written_by,) = (line for line in content.splitlines() if line.startswith("# Written by: "))
    words = shlex.split(written_by.removeprefix("# Written by: "))
    assert words[:3] == ["python", "-m", "analysis"]
    assert words[4:8] == ["mixed-60steps-seed0", "--max-memory", str(90 * 2**20), "--pareto"]
    out.unlink()
    assert invoke(*words[3:]).exit_code == 0
    assert out.read_text() == content


def test_fewer_configs_than_requested_are_reported(storage: Path, tmp_path: Path) -> None:
    words = ["--top", 2, "--pareto", "--out", tmp_path / "best.yaml"]
    result = invoke("export", "mixed", "--storage", storage, *words)
    # All trials have the same peak, so only one is on the front.
    assert (
        "complete trials, on the Pareto front with peak memory, of mixed-60steps-seed0: only 1 "
        in result.stderr
    )


@pytest.mark.parametrize("text", ["plenty", "200 apples", "-1"])
def test_an_invalid_size_is_a_one_line_error(storage: Path, text: str) -> None:
    result = invoke("export", "mixed", "--storage", storage, "--max-memory", text)
    assert (result.exit_code, result.stdout) == (2, "")
    said = f"'{text}': bytes above 0 are accepted, such as 2000000, 200MiB or 1.5GB"
    assert said in result.stderr


def test_sweeps_are_compared_side_by_side(storage: Path) -> None:
    result = invoke("compare", "mixed-60steps-seed0", "single", "--storage", storage)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["mixed-60steps-", "single-60steps-"]
    (best,) = (line for line in lines if line.startswith("best, validation"))
    assert best.split()[2:] == ["66.7", "±", "1.2", "%", "25.0", "±", "1.2", "%"]


@pytest.mark.parametrize("columns", [80, 40])
def test_trials_as_csv_are_those_of_a_report(storage: Path, tmp_path: Path, columns: int) -> None:
    result = invoke("trials", "mixed", "--csv", "--storage", storage, columns=columns)
    write_trials(read_sweep(default_uri(storage), "mixed"), tmp_path / "trials.csv")
    assert result.stdout.encode() == (tmp_path / "trials.csv").read_bytes()


def test_trials_are_printed_in_one_format(storage: Path) -> None:
    result = invoke("trials", "mixed", "--csv", "--json", "--storage", storage)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "only one of --json and --csv" in result.stderr


def test_a_comparison_as_json_is_exact(storage: Path) -> None:
    result = invoke("compare", "mixed", "single", "--json", "--storage", storage)
    first, second = json.loads(result.stdout)
    assert (first["sweep"], first["complete"], first["trials"]) == ("mixed-60steps-seed0", 3, 10)
    assert (first["best"], first["val"], first["test"]) == (2 / 3, 0.78125, 0.53125)
    assert (first["test_task_interval"], first["seeds"]) == (INTERVAL, 2)
    assert first["peak_memory_bytes"] == 81_998_337
    assert (second["best"], second["val"], second["peak_memory_bytes"]) == (0.25, None, None)
    assert second["least_memory_bytes"] is second["hypervolume"] is None
    assert not any(isinstance(value, dict | list) for value in [*first.values(), *second.values()])


@pytest.mark.parametrize(
    "args",
    [
        ["trials", "nope"],
        ["compare", "mixed", "nope"],
        ["compare", "mixed", "factorial"],
        ["export", "mixed", "--max-memory", "1MiB"],
        ["trials", "mixed", "--storage", "/nowhere"],
        ["trials", "mixed", "--tracking-uri", "localhost:5000"],
        ["export", "mixed-60steps-seed1"],
        ["export", "factorial"],
        ["export", "mixed", "--out", "/dev/null/best.yaml"],
        ["export", "mixed", "--out", "best.txt"],
    ],
)
def test_bad_input_is_a_one_line_error_with_code_two(storage: Path, args: list[str]) -> None:
    result = invoke(args[0], "--storage", storage, *args[1:])
    assert result.exit_code == 2
    assert result.stdout == ""
    errors = [line for line in result.stderr.splitlines() if "to select another" not in line]
    assert len(errors) == 1
    assert errors[0].startswith("Error: ")


def test_compare_without_studies_is_a_usage_error() -> None:
    result = invoke("compare")
    assert result.exit_code == 2
    assert "Missing argument 'STUDY...'" in result.stderr


def test_the_program_prints_nothing_else(storage: Path, tmp_path: Path) -> None:
    root = ROOT
    command = [sys.executable, "-m", "analysis", "trials", "mixed-60steps-seed0"]
    done = subprocess.run(
        [*command, "--storage", storage],
        cwd=tmp_path,
        env={"PYTHONPATH": str(root), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "66.7 ± 1.2" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["trials", "verify"])
def test_help_imports_no_slow_libraries(command: str) -> None:
    code = (
        "import sys\n"
        "from analysis.__main__ import main\n"
        f"main(['{command}', '--help'], standalone_mode=False)\n"
        "sys.exit(bool({'mlflow', 'torch', 'scipy'} & sys.modules.keys()))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_report_is_written_and_uploaded_to_the_run(storage: Path, tmp_path: Path) -> None:
    out = tmp_path / "re port"
    result = invoke("report", "mixed", "--storage", storage, "--out", out)
    assert (result.exit_code, result.stdout) == (0, f"wrote {out / 'report.html'}\n")
    parent = read_sweep(default_uri(storage), "mixed").trials[0].parent_run_id
    client = MlflowClient(default_uri(storage))
    added = {file.path for file in client.list_artifacts(parent, "report")}
    assert added == {"report/report.html", "report/trials.csv", "report/figures", "report/data"}
    copy = client.download_artifacts(parent, "report/report.html", str(tmp_path))
    assert Path(copy).read_bytes() == (out / "report.html").read_bytes()


def test_a_report_is_redrawn_from_trials_csv(storage: Path, tmp_path: Path) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    invoke("report", "factorial", "--storage", storage, "--out", first)
    result = invoke("report", "--trials-csv", first / "trials.csv", "--out", again)
    assert result.exit_code == 0
    names = {path.relative_to(first) for path in first.rglob("*.*")}
    assert names == {path.relative_to(again) for path in again.rglob("*.*")}
    for name in names - {Path("report.html")}:  # It names the command that made it.
        assert (first / name).read_bytes() == (again / name).read_bytes()


def test_the_command_in_the_footer_repeats_the_report(storage: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    words = ["factorial", "--storage", storage, "--reference-memory", "2GiB", "--out", out]
    assert invoke("report", *words).exit_code == 0
    assert f"--reference-memory {2 * 2**30}. All trials" in (out / "report.html").read_text()


@pytest.mark.parametrize("words", [[], ["mixed", "--trials-csv", "trials.csv"]])
def test_a_report_needs_either_a_study_or_a_table(words: list[str]) -> None:
    result = invoke("report", *words)
    assert result.exit_code == 2
    assert "give either STUDY or --trials-csv" in result.stderr
