"""Installation of the peer libraries into a separate environment."""

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
    """Install the libraries into `environment` and add it to the path of this process.

    The environment is created if it does not exist. It comes last on the path, so that all
    libraries share the project's PyTorch.

    Returns:
        The libraries that could not be installed, with reasons.

    Raises:
        InputError: the environment cannot be created.
    """
    base = {"base": str(environment), "platbase": str(environment)}
    packages = sysconfig.get_path("purelib", "venv", base)
    python = environment / "bin" / "python"
    if not python.exists():
        _say(f"creating {environment}")
        made = _run(sys.executable, "-m", "venv", str(environment))
        if made.returncode:
            raise InputError(f"--environment {environment}: {_last_line(made, 'Error: ')}")
    sys.path.append(packages)
    installed = {
        f"{re.sub('[-_.]+', '-', package.name).lower()}=={package.version}"
        for package in importlib.metadata.distributions(path=[packages])
    }
    lines = (shlex.split(line, comments=True) for line in REQUIREMENTS.read_text().splitlines())
    return _install_each(python, [words for words in lines if words and words[0] not in installed])


def _install_each(python: Path, requirements: Sequence[Sequence[str]]) -> dict[str, str]:
    failures = {}
    for words in requirements:
        _say(f"installing {words[0]}")
        options = ("--quiet", "--no-deps", "--disable-pip-version-check", "--retries", "1")
        done = _run(str(python), "-m", "pip", "install", *options, *words)
        if done.returncode and "Retrying (" in done.stderr:
            # The other libraries would fail, too.
            return dict.fromkeys(LIBRARIES, "no package index could be reached")
        if done.returncode:
            failures[words[0].partition("==")[0]] = _last_line(done, "ERROR: ")
    importlib.invalidate_caches()
    return failures


def _run(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _last_line(done: "subprocess.CompletedProcess[str]", prefix: str) -> str:
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    errors = [line.removeprefix(prefix) for line in lines if line.startswith(prefix)]
    return (errors or lines or [f"exit code {done.returncode}"])[-1]


def _say(text: str) -> None:
    click.echo(text, err=True)


def missing(failures: Mapping[str, str]) -> dict[str, str]:
    """`failures` and the libraries that cannot be imported, with reasons."""
    result = dict(failures)
    for library in LIBRARIES:
        if library not in result:
            try:
                _import(library)
            except Exception as error:  # importing a package can fail in any way
                result[library] = f"cannot be imported: {one_line(error)}"
    return result


def one_line(error: Exception) -> str:
    """The first line of an error message."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _import(library: str) -> None:
    """Import a library without its warnings about dependencies."""
    warnings.filterwarnings("ignore", category=FutureWarning, module=library)
    with redirect_stderr(io.StringIO()), warnings.catch_warnings(action="ignore"):
        if library == "learn2learn":
            # It imports torchvision, which needs a workaround with a CPU build of PyTorch.
            torchvision_datasets()
        importlib.import_module(library)
