import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from analysis.__main__ import main
from memmeta.exported import read_run


def invoke(*args: object, columns: int = 80) -> Result:
    return CliRunner().invoke(main, list(map(str, args)), env={"COLUMNS": str(columns)})


def test_the_table_fits_eighty_columns(storage: Path) -> None:
    result = invoke("trials", "mixed", "--storage", storage)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "mixed-60steps-seed0: 2 of 7 trials complete"
    first, second = (line for line in lines if "±" in line)
    assert first.split() == [
        "1", "001", "66.67", "±", "1.23", "78.2", "0.3", "1", "0.0333", "20", "0.001", "8",
    ]  # fmt: skip
    assert second.split()[:6] == ["2", "000", "60.00", "±", "1.23", "78.2"]
    assert [line.split()[:3] for line in lines if line.lstrip().startswith("–")] == [
        ["–", "002", "diverged"],
        ["–", "003", "out"],
        ["–", "004", "interrupted"],
        ["–", "005", "interrupted"],
        ["–", "006", "failed"],
    ]


def test_what_is_constant_is_no_column_but_is_said(storage: Path) -> None:
    table, _, same = invoke("trials", "mixed", "--storage", storage, columns=300).stdout.partition(
        "the same in all: "
    )
    for name in ("ridge 0.01", "dataset glyphs", "iterations 60", "seed 0"):
        assert name in same
        assert name.split()[0] not in table.replace("seed0", "")


def test_a_narrow_terminal_gets_every_number_whole(storage: Path) -> None:
    lines = invoke("trials", "mixed", "--storage", storage, columns=40).stdout.splitlines()
    assert max(map(len, lines)) <= 40
    assert "…" not in "".join(lines)
    words = {word for line in lines for word in line.split() if "001" in line}
    assert {"66.67", "1.23", "78.2", "0.3", "0.0333"} <= words
    assert sum(line.split()[:2] == ["1", "001"] for line in lines) > 1


def test_a_single_trial_is_a_table_too(storage: Path) -> None:
    result = invoke("trials", "single", "--storage", storage)
    assert "25.00 ± 1.23" in result.stdout
    assert "inner_lr 1, " in result.stdout.replace("\n", " ")


def test_json_is_flat_and_exact(storage: Path) -> None:
    rows = json.loads(invoke("trials", "mixed", "--json", "--storage", storage).stdout)
    assert [row["rank"] for row in rows] == [1, 2, None, None, None, None, None]
    assert all(row.keys() == rows[0].keys() for row in rows)
    assert not any(isinstance(value, dict | list) for row in rows for value in row.values())
    best = rows[0]
    assert (best["val_accuracy"], best["peak_memory_bytes"]) == (2 / 3, 81_998_337)
    assert (best["inner_lr"], best["inner_steps"], best["dataset"]) == (0.1 / 3, 1, "glyphs")
    assert (best["sweep"], best["run_name"]) == ("mixed-60steps-seed0", "trial 001")


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
    result = invoke("export", "mixed", "--storage", storage, "--top", 3, "--out", out)
    assert result.exit_code == 0
    assert "complete trials of mixed-60steps-seed0: only 2" in result.stderr
    assert read_run(out, 2).results.val_accuracy == 0.6
    written_by = out.read_text().splitlines()[1]
    assert "export mixed-60steps-seed0 --top 3 --out" in written_by


@pytest.mark.parametrize(
    "args",
    [
        ["trials", "nope"],
        ["trials", "mixed", "--storage", "/nowhere"],
        ["trials", "mixed", "--tracking-uri", "localhost:5000"],
        ["export", "mixed-60steps-seed1"],
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
