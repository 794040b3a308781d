"""Output where the encoding lacks characters: nothing fails, and what is there is as it was."""

import io
import os
import pty
import subprocess
import sys

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table

from memmeta.system import plain_text
from tests import ROOT
from tests.memmeta.commands.helpers import TINY


def written(text: str, encoding: str) -> str:
    """What a stream of this encoding gets of a text."""
    with pytest.MonkeyPatch.context() as patch:
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="")
        patch.setattr(sys, "stdout", stream)
        plain_text.degrade_output()
        stream.write(text)
        stream.flush()
    return stream.buffer.getvalue().decode(encoding)


@given(
    text=st.text(st.characters(exclude_categories=())),
    encoding=st.sampled_from(["ascii", "latin-1", "cp437", "koi8-r", "utf-8"]),
)
def test_every_text_can_be_printed_and_what_the_encoding_has_stays(text, encoding):
    out = written(text, encoding)
    for character in text:
        try:
            character.encode(encoding)
        except UnicodeEncodeError:
            continue
        assert character in out
    if text.isascii():
        assert out == text


@pytest.mark.parametrize(
    ("text", "plain"),
    [("71.4 ± 2.3 %", "71.4 +- 2.3 %"), ("K × N, 1–5…", "K x N, 1-5..."), ("Müller", "Muller")],
)
def test_what_this_program_prints_is_readable_in_ascii(text, plain):
    assert written(text, "ascii") == plain
    assert written(text, "utf-8") == text


def test_every_character_of_this_programs_texts_has_a_plain_form():
    sources = [
        path.read_text(encoding="utf-8")
        for package in ("memmeta", "sweeps", "analysis")
        for path in (ROOT / package).rglob("*.py")
    ]
    characters = {
        character for source in sources for character in source if not character.isascii()
    }
    assert characters >= {"±", "×"}
    assert not [c for c in characters if "?" in written(c, "ascii")]


def test_a_table_is_drawn_in_ascii():
    table = Table(title="é")
    table.add_column("±")
    with pytest.MonkeyPatch.context() as patch:
        stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
        patch.setattr(sys, "stdout", stream)
        plain_text.degrade_output()
        Console(file=stream, width=40).print(table)
        stream.flush()
    assert b"+-" in stream.buffer.getvalue()


@pytest.mark.thorough
def test_a_command_trains_in_view_of_a_terminal_that_has_ascii_alone(data_root, tmp_path):
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(TINY))
    ours, theirs = pty.openpty()
    words = ["train", str(config), "--data-root", str(data_root), "--out", str(tmp_path / "x.pt")]
    process = subprocess.Popen(
        [sys.executable, "-m", "memmeta", *words],
        stdout=theirs,
        stderr=theirs,
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": "ascii", "TERM": "xterm"},
    )
    os.close(theirs)
    output = b""
    while True:
        try:
            output += os.read(ours, 4096)
        except OSError:  # the end, as Linux has it
            break
    os.close(ours)
    assert process.wait() == 0, output
    assert b" +- " in output
    assert output.isascii()
