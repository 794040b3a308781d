from pathlib import Path

import pytest
from mlflow import MlflowClient

from analysis.records.trials import read_sweep
from sweeps.engine.stores.store import default_uri
from tests.analysis.commands.invoke import invoke


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
    assert "--reference-memory 2GiB. All trials" in (out / "report.html").read_text()


@pytest.mark.parametrize("words", [[], ["mixed", "--trials-csv", "trials.csv"]])
def test_a_report_needs_either_a_study_or_a_table(words: list[str]) -> None:
    result = invoke("report", *words)
    assert result.exit_code == 2
    assert "give either STUDY or --trials-csv" in result.stderr
