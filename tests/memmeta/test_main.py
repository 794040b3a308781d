"""The program `memmeta` and the commands that it finds."""

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import version

import click
import pytest
from click.testing import CliRunner, Result

from memmeta.__main__ import EntryPointGroup, main
from tests import ROOT

OWN = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]

LONG = "x" * 256
"""A longer name than a file can have."""


def invoke(*words: str) -> Result:
    return CliRunner().invoke(main, words)


def commands() -> Iterator[tuple[str, click.Command]]:
    """All commands, with their full names."""
    context = click.Context(main)
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert command is not None
        yield name, command
        if isinstance(command, click.Group):
            yield from ((f"{name} {inner}", each) for inner, each in command.commands.items())


def parse(words: list[str]) -> None:
    """Parse a command line without running it."""
    command: click.Command = main
    context = None
    while isinstance(command, click.Group):
        context = command.make_context("memmeta", words, context)
        name, found, words = command.resolve_command(
            context, [*context._protected_args, *context.args]
        )
        assert found is not None, name
        command = found
    command.make_context("memmeta", words, context)


def test_the_help_lists_every_command_without_slow_imports():
    code = (
        "import sys\n"
        "from memmeta.__main__ import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "sys.exit(', '.join({'torch', 'ray', 'optuna', 'mlflow'} & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    listed = re.findall(r"^  ([a-z]+)  +\w", done.stdout, re.MULTILINE)
    assert {*listed, "download"} == OWN["memmeta.commands"].keys()
    assert listed == main.list_commands(click.Context(main))


def test_every_command_has_an_example_that_parses():
    names = []
    for name, command in commands():
        assert command.epilog, name
        program, *words = shlex.split(command.epilog.removeprefix("Example: "))
        assert (program, " ".join(words).startswith(name)) == ("memmeta", True), name
        parse(words)
        names.append(name)
    assert {"train", "data download", "sweep", "sweeps rm", "export"} <= {*names}


def test_the_help_of_a_command_ends_with_its_example():
    result = invoke("sweeps", "rm", "--help")
    assert result.exit_code == 0
    assert result.output.rstrip().splitlines()[-1].startswith("  Example: memmeta sweeps rm ")


@pytest.mark.parametrize(
    ("words", "suggestion"),
    [
        (["trails"], "'trials'"),
        (["swep", "glyphs"], "'sweep'"),
        (["trials", "glyphs", "--stroage", "x"], "'--storage'"),
        (["sweeps", "remove"], None),
        (["data", "downlod", "glyphs"], "'download'"),
        (["data", "download", "cifarfs"], "did you mean cifar_fs?"),
        (["sweep", "glyps"], "did you mean glyphs?"),
        (["sweep", "glyphs", "--stage", "explor"], "did you mean explore?"),
    ],
)
def test_a_misspelled_word_gets_a_suggestion(words, suggestion):
    result = invoke(*words)
    assert result.exit_code == 2
    if suggestion:
        assert suggestion in result.output
    else:
        assert "mean" not in result.output


def test_the_version():
    assert invoke("--version").output == f"memmeta {version('memmeta')}\n"


@pytest.fixture
def other_package(tmp_path, monkeypatch):
    """An installed package with a command, and with one that cannot be imported."""
    (tmp_path / "other.py").write_text(
        "import click\n"
        "@click.command()\n"
        "def greet():\n"
        "    '''Greet the user. In full.'''\n"
        "    click.echo('hello')\n"
    )
    info = tmp_path / "other-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[memmeta.commands]\ngreet = other:greet\nbroken = other.missing:broken\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("other_package")
def test_other_packages_add_commands():
    group = EntryPointGroup("memmeta")
    shown = CliRunner().invoke(group, ["--help"]).output
    added = shown[shown.index("Other packages:") :]
    assert re.search(r"greet +Greet the user\.\n", added)
    assert re.search(r"broken +cannot be imported", added)
    assert CliRunner().invoke(group, ["greet"]).output == "hello\n"


@pytest.mark.parametrize(
    "words",
    [
        ["predict", LONG, "--support", "a", "--query", "b", "--out", "c.csv"],
        ["predict", "model.pt", "--support", "a", "--query", LONG, "--out", "c.csv"],
        ["predict", "model.pt", "--support", "a", "--query", "b", "--out", f"c/{LONG}/d.csv"],
        ["train", LONG],
        ["evaluate", f"{LONG}/model.pt"],
        ["data", "list", "--cache", LONG],
        ["sweeps", "list", "--storage", LONG],
        ["sweep", "glyphs", "--storage", LONG],
        ["sweep", LONG],
        ["trials", "glyphs", "--storage", LONG],
        ["report", "glyphs", "--out", LONG],
        ["export", "glyphs", "--out", f"{LONG}.yaml"],
        ["verify", LONG],
    ],
)
def test_a_path_that_no_file_can_have_is_one_line(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = invoke(*words)
    assert result.exit_code == 2
    assert re.fullmatch(r"Error: .*: a path of at most .* is accepted.*\n", result.output)
    assert not [*tmp_path.iterdir()]
