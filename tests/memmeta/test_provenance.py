import os
import shutil
import subprocess
import sys
from pathlib import Path

import memmeta

PACKAGE = Path(memmeta.__file__).parent


def commit(copy: Path) -> str:
    """What a new process says whose code is in `copy`."""
    return subprocess.run(
        [sys.executable, "-c", "from memmeta import provenance; print(provenance.commit())"],
        cwd=copy,
        env=os.environ | {"PYTHONPATH": str(copy)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()


def committed(folder: Path) -> Path:
    """A repository with this package and a document in it."""
    shutil.copytree(PACKAGE, folder / "memmeta", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "README.md").touch()
    author = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["add", "."], [*author, "commit", "-q", "-m", "all"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


def test_a_node_that_has_the_code_and_no_documents_names_the_commit(tmp_path):
    copy = committed(tmp_path)
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=copy, check=True, capture_output=True, text=True
    ).stdout.strip()
    (copy / "README.md").unlink()
    (copy / ".git/config").unlink()  # it may hold passwords, and is not copied to nodes
    assert commit(copy) == head

    (copy / "memmeta/heads.py").open("a").write("\n")
    assert commit(copy) == f"{head}-dirty"


def test_code_outside_git_has_no_commit(tmp_path):
    copy = committed(tmp_path)
    shutil.rmtree(copy / ".git")
    assert commit(copy) == "unknown"
