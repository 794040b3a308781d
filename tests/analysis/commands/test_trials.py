import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from analysis.display import trial_list
from analysis.records.trial_table import write_trials
from analysis.records.trials import read_sweep
from sweeps.engine.stores.store import default_uri
from tests.analysis import made_up
from tests.analysis.commands.invoke import invoke
from tests.analysis.made_up import MIB
from tests.analysis.stand_ins import INTERVAL, LOST, MEASURED


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


@pytest.mark.parametrize("columns", [80, 40])
def test_csv_is_that_of_a_report(storage: Path, tmp_path: Path, columns: int) -> None:
    result = invoke("trials", "mixed", "--csv", "--storage", storage, columns=columns)
    write_trials(read_sweep(default_uri(storage), "mixed"), tmp_path / "trials.csv")
    assert result.stdout.encode() == (tmp_path / "trials.csv").read_bytes()


def test_trials_are_printed_in_one_format(storage: Path) -> None:
    result = invoke("trials", "mixed", "--csv", "--json", "--storage", storage)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "only one of --json and --csv" in result.stderr


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
