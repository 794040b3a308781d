"""`memmeta sweeps` and `memmeta sweeps rm`."""

import errno
import json

import pytest
from click.testing import CliRunner

from sweeps.commands.sweeps import sweeps
from sweeps.engine.inventory import removal
from sweeps.engine.ledger.opening import sweep_lock

NAME, OTHER = "single-60steps-seed0", "factorial-60steps-seed0"


@pytest.fixture
def invoke(storage):
    """Runs the command with the options of the storage."""

    def run(*words, answer=None):
        places = ["--storage", str(storage)]
        return CliRunner().invoke(sweeps, [*words, *places], input=answer, env={"COLUMNS": "80"})

    return run


def test_the_table_fits_eighty_columns(invoke):
    result = invoke()
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["sweep", "state", "trials", "size", "last", "active"]
    assert [line.split()[:3] for line in lines[1:]] == [
        [OTHER, "finished", "2"],
        [NAME, "finished", "1"],
    ]
    assert max(map(len, lines)) <= 80


def test_json(invoke, storage):
    first, second = json.loads(invoke("--json").stdout)
    assert (first["name"], first["trials"], second["trials"]) == (OTHER, 2, 1)
    assert second["folder"] == str(storage / NAME)
    assert second["bytes"] > 0


def test_an_empty_storage(tmp_path):
    result = CliRunner().invoke(sweeps, ["--storage", str(tmp_path / "nothing")])
    assert (result.exit_code, "no sweeps in" in result.output) == (0, True)


def test_options_before_the_command_are_refused(invoke):
    result = invoke("--json", "rm", NAME)
    assert result.exit_code == 2
    assert "unexpected extra arguments (rm" in result.output


@pytest.mark.parametrize(("answer", "stays"), [("y\n", False), ("n\n", True)])
def test_rm_asks(invoke, storage, answer, stays):
    result = invoke("rm", NAME, answer=answer)
    assert result.exit_code == 0
    assert f"Remove {NAME}: {storage / NAME}" in result.stdout.replace("\n", "")
    assert (storage / NAME).exists() is stays
    assert ("nothing was removed" in result.stdout) is stays
    assert (storage / OTHER).exists()


def test_rm_without_anybody_to_ask_removes_nothing(invoke, storage):
    result = invoke("rm", NAME, answer="")
    assert (result.exit_code, "give --yes" in result.stderr) == (2, True)
    assert (storage / NAME).exists()


def test_rm_says_what_it_removed(invoke, storage):
    result = invoke("rm", NAME, "--yes")
    assert result.exit_code == 0
    runs, folder = result.stdout.splitlines()
    assert runs.startswith("removed its run and 1 trial in sqlite:///")
    assert folder == f"removed {storage / NAME}"
    again = invoke("rm", NAME, "--yes")
    assert (again.exit_code, f"{NAME}: no such sweep in" in again.stderr) == (2, True)


def test_rm_removes_the_only_sweep_of_a_study(invoke, storage):
    assert invoke("rm", "single", "--yes").exit_code == 0
    assert not (storage / NAME).exists()
    assert (storage / OTHER).exists()


def test_rm_refuses_a_running_sweep(invoke, storage):
    with sweep_lock(storage / NAME):
        result = invoke("rm", NAME, "--yes")
    assert (result.exit_code, "already running" in result.stderr) == (2, True)
    assert (storage / NAME / "journal.log").exists()


def test_rm_says_what_it_could_not_remove(invoke, storage, monkeypatch):
    def busy(path):
        raise OSError(errno.EBUSY, "Device or resource busy", str(path))

    (storage / NAME / "checkpoints").mkdir(exist_ok=True)
    monkeypatch.setattr(removal.shutil, "rmtree", busy)
    result = invoke("rm", NAME, "--yes")
    assert result.exit_code == 1
    assert "removed its run and 1 trial" in result.stdout
    assert f"{storage / NAME / 'checkpoints'}: cannot be removed" in result.stderr
    assert "run the same command again" in result.stderr
