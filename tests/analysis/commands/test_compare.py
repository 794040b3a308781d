import json
from pathlib import Path

from tests.analysis.commands.invoke import invoke
from tests.analysis.stand_ins import INTERVAL


def test_sweeps_are_compared_in_one_table(storage: Path) -> None:
    args = ["compare", "mixed-60steps-seed0", "single", "--storage", storage]
    result = invoke(*args, columns=400)
    assert result.exit_code == 0
    rows = [line for line in result.stdout.splitlines() if "memory_reduced" in line]
    assert [row.split()[0] for row in rows] == ["mixed-60steps-seed0", "single-60steps-seed0"]
    assert "66.67 ± 1.23 %" in rows[0]
    assert "seed_" not in result.stdout
    narrow = invoke(*args).stdout
    assert max(map(len, narrow.splitlines())) <= 80
    assert "…" not in narrow


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


def test_compare_without_studies_is_a_usage_error() -> None:
    result = invoke("compare")
    assert result.exit_code == 2
    assert "Missing argument 'STUDY...'" in result.stderr
