import subprocess
import sys
from pathlib import Path

import pytest

from sweeps.engine.stores.store import default_uri
from tests import ROOT
from tests.analysis.commands.invoke import invoke


@pytest.mark.parametrize("name", ["MEMMETA_STORAGE", "MLFLOW_TRACKING_URI"])
def test_storage_is_read_from_the_environment(
    storage: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = storage if name == "MEMMETA_STORAGE" else default_uri(storage)
    monkeypatch.setenv(name, str(place))
    found = invoke("trials", "mixed")
    assert found.stdout == invoke("trials", "mixed", "--storage", storage).stdout


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
