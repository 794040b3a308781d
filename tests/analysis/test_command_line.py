import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from analysis import table
from analysis.__main__ import main
from analysis.trials import read_sweep
from memmeta.exported import read_run
from sweeps.engine.store import default_uri
from tests.analysis.stand_ins import INTERVAL, LOST, MEASURED


def invoke(*args: object, columns: int = 80) -> Result:
    return CliRunner().invoke(main, list(map(str, args)), env={"COLUMNS": str(columns)})


def blocks(output: str) -> dict[str, list[str]]:
    """The lines of every block under its title."""
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
        "1", "explore", "001", "66.67", "±", "1.23", "78.2", "0.3",
        "0.01", "2", "0.0333", "20", "0.001", "8",
    ]  # fmt: skip
    assert second.split()[:7] == ["2", "search", "000", "64.00", "±", "1.23", "78.2"]
    assert third.split()[:3] == ["3", "explore", "000"]
    assert [line.split()[:4] for line in ranked if line.lstrip().startswith("–")] == [
        ["–", "search", "001", "pruned"],
        ["–", "explore", "002", "diverged"],
        ["–", "explore", "003", "out"],
        ["–", "explore", "007", "running"],
        ["–", "explore", "004", "interrupted"],
        ["–", "explore", "005", "interrupted"],
        ["–", "explore", "006", "failed"],
    ]


def test_each_stage_that_is_not_ranked_stands_alone(storage: Path) -> None:
    found = blocks(invoke("trials", "mixed", "--storage", storage).stdout)
    assert list(found) == ["explore and search", "confirm", "grid"]
    assert [found[title][0] for title in found] == [
        "explore and search: 3 of 10 trials complete",
        "confirm: 3 of 4 trials complete",
        "grid: 2 of 2 trials complete",
    ]
    trials = [line.split() for line in found["confirm"] if line.startswith("confirm 0")]
    assert trials[0][:8] == ["confirm", "000", "75.00", "±", "1.23", "50.00", "±", "1.23"]
    assert trials[2][:4] == ["confirm", "002", "diverged", "78.2"]
    assert not any("test accuracy" in line for line in found["grid"])
    assert "the same in these: seed 0" in found["explore and search"]


def test_a_grid_alone_is_listed_as_it_was_laid_out(storage: Path) -> None:
    output = invoke("trials", "factorial", "--storage", storage).stdout
    assert list(blocks(output)) == ["grid"]
    lines = [line.split() for line in output.splitlines() if "±" in line]
    assert [line[:3] for line in lines] == [["grid", "000", "85.00"], ["grid", "001", "95.00"]]
    assert [line[-1] for line in lines] == ["1", "5"]
    rows = json.loads(invoke("trials", "factorial", "--json", "--storage", storage).stdout)
    assert [(row["stage"], row["index"], row["rank"]) for row in rows] == [
        ("grid", 0, None),
        ("grid", 1, None),
    ]


def test_what_is_constant_is_no_column_but_is_said(storage: Path) -> None:
    table, _, same = invoke("trials", "mixed", "--storage", storage, columns=300).stdout.partition(
        "the same in all: "
    )
    for name in ("head linear", "dataset glyphs", "iterations 60", "val_tasks 50"):
        assert name in same
        assert name.split()[0] not in table


def test_a_narrow_terminal_gets_every_number_whole(storage: Path) -> None:
    lines = invoke("trials", "mixed", "--storage", storage, columns=40).stdout.splitlines()
    assert max(map(len, lines)) <= 40
    assert "…" not in "".join(lines)
    words = {word for line in lines for word in line.split() if "explore 001" in line}
    assert {"66.67", "1.23", "78.2", "0.3", "0.0333"} <= words
    assert sum(line.split()[:3] == ["1", "explore", "001"] for line in lines) > 1


def test_a_single_trial_is_a_table_too(storage: Path) -> None:
    result = invoke("trials", "single", "--storage", storage)
    assert "25.00 ± 1.23" in result.stdout
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
    assert [row["chunk"] for row in table.rows(sweep)] == [None, 25]
    table.show(Console(width=100), sweep)
    assert "     5     25" in capsys.readouterr().out


@pytest.mark.parametrize("flag", ["--json", "--tracking-uri"])
def test_other_sweeps_are_said_beside_the_output(storage: Path, flag: str) -> None:
    flags = [flag] if flag == "--json" else [flag, f"sqlite:///{storage}/mlflow.db"]
    result = invoke("trials", "mixed", "--storage", storage, *flags)
    assert result.stderr == (
        "mixed: this is mixed-60steps-seed0; name another in full: mixed-60steps-seed1\n"
    )
    assert "seed1" not in result.stdout


def test_export_writes_a_file_to_train_from(storage: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "best.yaml"
    result = invoke("export", "mixed", "--storage", storage, "--top", 4, "--out", out)
    assert result.exit_code == 0
    assert "complete trials of mixed-60steps-seed0: only 3 of explore and search" in result.stderr
    assert read_run(out, 3).results.val_accuracy == 0.6
    written_by = out.read_text().splitlines()[2]
    assert "export mixed-60steps-seed0 --top 4 --out" in written_by


@pytest.mark.parametrize(
    "args",
    [
        ["trials", "nope"],
        ["trials", "mixed", "--storage", "/nowhere"],
        ["trials", "mixed", "--tracking-uri", "localhost:5000"],
        ["export", "mixed-60steps-seed1"],
        ["export", "factorial"],
        ["export", "mixed", "--out", "/dev/null/best.yaml"],
    ],
)
def test_bad_input_is_one_line_and_code_two(storage: Path, args: list[str]) -> None:
    result = invoke(args[0], "--storage", storage, *args[1:])
    assert result.exit_code == 2
    assert result.stdout == ""
    errors = [line for line in result.stderr.splitlines() if "name another in full" not in line]
    assert len(errors) == 1
    assert errors[0].startswith("Error: ")


def test_as_a_program_it_is_quiet(storage: Path, tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "analysis", "trials", "mixed-60steps-seed0"]
    done = subprocess.run(
        [*command, "--storage", storage],
        cwd=tmp_path,
        env={"PYTHONPATH": str(root), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "66.67 ± 1.23" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_help_does_not_wait_for_mlflow() -> None:
    code = (
        "import sys\n"
        "from analysis.__main__ import main\n"
        "main(['trials', '--help'], standalone_mode=False)\n"
        "sys.exit('mlflow' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
