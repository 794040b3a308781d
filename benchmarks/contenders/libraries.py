"""The libraries that memmeta is compared with, installed into an environment of their own."""

import importlib
import importlib.metadata
import io
import re
import shlex
import subprocess
import sys
import sysconfig
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from pathlib import Path

import click

from memmeta.data.formats.downloads import torchvision_datasets
from memmeta.errors import InputError

LIBRARIES = ("learn2learn", "torchopt", "higher")
REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def install(environment: Path) -> dict[str, str]:
    """Put the libraries into `environment`, made if need be, and on this process' path.

    There they come after the project's own packages, so that all share one PyTorch.

    Returns:
        What could not be installed, and why.

    Raises:
        InputError: there can be no such environment.
    """
    base = {"base": str(environment), "platbase": str(environment)}
    packages = sysconfig.get_path("purelib", "venv", base)
    python = environment / "bin" / "python"
    if not python.exists():
        _say(f"making {environment}")
        made = _run(sys.executable, "-m", "venv", str(environment))
        if made.returncode:
            raise InputError(f"--environment {environment}: {_last_line(made, 'Error: ')}")
    sys.path.append(packages)
    there = {
        f"{re.sub('[-_.]+', '-', found.name).lower()}=={found.version}"
        for found in importlib.metadata.distributions(path=[packages])
    }
    lines = (shlex.split(line, comments=True) for line in REQUIREMENTS.read_text().splitlines())
    return _install_each(python, [words for words in lines if words and words[0] not in there])


def _install_each(python: Path, requirements: Sequence[Sequence[str]]) -> dict[str, str]:
    failures = {}
    for words in requirements:
        _say(f"installing {words[0]}")
        options = ("--quiet", "--no-deps", "--disable-pip-version-check", "--retries", "1")
        done = _run(str(python), "-m", "pip", "install", *options, *words)
        if done.returncode and "Retrying (" in done.stderr:
            # Nor will it be for the others.
            return dict.fromkeys(LIBRARIES, "no package index could be reached")
        if done.returncode:
            failures[words[0].partition("==")[0]] = _last_line(done, "ERROR: ")
    importlib.invalidate_caches()
    return failures


def _run(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _last_line(done: "subprocess.CompletedProcess[str]", prefix: str) -> str:
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    told = [line.removeprefix(prefix) for line in lines if line.startswith(prefix)]
    return (told or lines or [f"exit code {done.returncode}"])[-1]


def _say(text: str) -> None:
    click.echo(text, err=True)


def missing(failures: Mapping[str, str]) -> dict[str, str]:
    """`failures`, and the libraries that cannot be imported, with the reason."""
    result = dict(failures)
    for library in LIBRARIES:
        if library not in result:
            try:
                _import(library)
            except Exception as error:  # whatever a package does when it is imported
                result[library] = f"cannot be imported: {one_line(error)}"
    return result


def one_line(error: Exception) -> str:
    """The first line of what an error says."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _import(library: str) -> None:
    """Without what it has to say of its dependencies."""
    warnings.filterwarnings("ignore", category=FutureWarning, module=library)
    with redirect_stderr(io.StringIO()), warnings.catch_warnings(action="ignore"):
        if library == "learn2learn":
            # It imports torchvision, which needs help beside a CPU build of PyTorch.
            torchvision_datasets()
        importlib.import_module(library)
