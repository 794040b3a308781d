import json
from pathlib import Path

from tests.analysis.commands.invoke import invoke
from tests.analysis.stand_ins import INTERVAL


def test_sweeps_are_compared_side_by_side(storage: Path) -> None:
    result = invoke("compare", "mixed-60steps-seed0", "single", "--storage", storage)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["mixed-60steps-", "single-60steps-"]
    (best,) = (line for line in lines if line.startswith("best, validation"))
    assert best.split()[2:] == ["66.7", "±", "1.2", "%", "25.0", "±", "1.2", "%"]


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
