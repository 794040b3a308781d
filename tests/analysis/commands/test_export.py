import re
import shlex
from pathlib import Path

import pytest

from memmeta.exported import read_run
from tests.analysis.commands.invoke import invoke


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
    assert words[:2] == ["memmeta", "export"]
    assert words[2:6] == ["mixed-60steps-seed0", "--max-memory", str(90 * 2**20), "--pareto"]
    out.unlink()
    assert invoke(*words[1:]).exit_code == 0
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


@pytest.mark.parametrize(
    ("study", "reason"),
    [
        ("single", "stage confirm has no complete trial.*run stage confirm"),
        ("mixed", "its confirmed model is not in MLflow; run its study again"),
    ],
)
def test_a_sweep_without_a_confirmed_model_is_refused_before_anything_is_written(
    storage: Path, tmp_path: Path, study: str, reason: str
) -> None:
    words = ["--out", tmp_path / "best.yaml", "--model", tmp_path / "model.pt"]
    result = invoke("export", study, "--storage", storage, *words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.search(reason, result.stderr)
    assert list(tmp_path.iterdir()) == []
