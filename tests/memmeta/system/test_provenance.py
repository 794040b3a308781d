import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import memmeta
from memmeta.system import provenance

PACKAGE = Path(memmeta.__file__).parent


def commit(copy: Path) -> str:
    """What a new process says whose code is in `copy`."""
    return subprocess.run(
        [sys.executable, "-c", "from memmeta.system import provenance; print(provenance.commit())"],
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

    (copy / "memmeta/networks/heads.py").open("a").write("\n")
    assert commit(copy) == f"{head}-dirty"


def test_code_outside_git_has_no_commit(tmp_path):
    copy = committed(tmp_path)
    shutil.rmtree(copy / ".git")
    assert commit(copy) == "unknown"


CPU = torch.device("cpu")


@given(
    kind=st.sampled_from(["Intel(R) Xeon(R) Processor", "AMD EPYC 7B13 64-Core Processor", "M1"]),
    sets=st.sampled_from(["AVX2", "AVX512", "DEFAULT"]),
    threads=st.integers(1, 4),
    cores=st.integers(4, 64),
    version=st.sampled_from(["2.9.0+cpu", "2.13.0"]),
    old=st.booleans(),
)
def test_a_difference_is_expected_if_the_kind_the_threads_or_pytorch_differ(
    kind, sets, threads, cores, version, old
):
    stated = f"{kind}{'' if old else f' ({sets})'}, {threads} of {cores} cores, torch {version}"
    other = f"{kind} (AVX512), 2 of 2 cores, torch 2.13.0"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provenance, "hardware", lambda _: other)
        differs = provenance.expected_difference(stated, CPU)
        patch.setattr(provenance, "hardware", lambda _: stated.replace(kind, "Another"))
        of_another_kind = provenance.expected_difference(stated, CPU)
    equal = (old or sets == "AVX512") and threads == 2 and version == "2.13.0"
    assert (differs is None) == equal
    assert of_another_kind is not None


def test_the_hardware_names_the_kind_and_is_no_difference_to_itself():
    stated = provenance.hardware(CPU)
    assert f"({torch.backends.cpu.get_cpu_capability()}), " in stated
    assert provenance.expected_difference(stated, CPU) is None
