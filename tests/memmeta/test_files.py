import os
import subprocess
import sys

import pytest

from memmeta.files import check_writable, whole

SLOW_WRITER = """
import sys
from pathlib import Path
from memmeta.files import whole

path, content = Path(sys.argv[1]), sys.argv[2].encode()
with whole(path) as file:
    file.write(content)
    file.flush()
    print("half-way", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def start_writer():
    """Starts a process that has written and goes no further until it is told to."""
    writers = []

    def start(path, content):
        writer = subprocess.Popen(
            [sys.executable, "-c", SLOW_WRITER, str(path), content],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        writers.append(writer)
        assert writer.stdout.readline() == "half-way\n"
        return writer

    yield start
    for writer in writers:
        writer.kill()
        writer.communicate()


def test_the_file_appears_when_all_is_written(tmp_path):
    path = tmp_path / "folder" / "x"
    with whole(path) as file:
        file.write(b"all")
        assert not path.exists()
    assert path.read_bytes() == b"all"
    assert list(path.parent.iterdir()) == [path]


def test_to_check_makes_the_folder_and_leaves_the_file_as_it_is(tmp_path):
    path = tmp_path / "folder" / "x"
    check_writable(path)
    assert list(path.parent.iterdir()) == []
    path.write_bytes(b"old")
    check_writable(path)
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("name", ["x/below", "n" * 250])
def test_to_check_fails_where_writing_would(tmp_path, name):
    (tmp_path / "x").touch()
    with pytest.raises(OSError, match=r"Not a directory|File exists|name too long"):
        check_writable(tmp_path / name)
    with (
        pytest.raises(OSError, match=r"Not a directory|File exists|name too long"),
        whole(tmp_path / name),
    ):
        pass


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"old")

    def fail():
        with whole(path) as file:
            file.write(b"half")
            raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_processes_may_write_the_same_file_at_once(tmp_path, start_writer):
    path = tmp_path / "x"
    orphan, successor = (start_writer(path, content) for content in ("orphan's", "successor's"))
    assert not path.exists()
    for writer, content in ((successor, "successor's"), (orphan, "orphan's")):
        writer.communicate("go on\n")
        assert writer.returncode == 0
        assert path.read_text() == content
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_is_removed_when_it_is_an_hour_old(tmp_path, start_writer):
    path = tmp_path / "[x]"
    for _ in range(2):
        writer = start_writer(path, "half")
        writer.kill()
        writer.wait()
    old, fresh = tmp_path.iterdir()
    written = old.stat().st_mtime
    os.utime(old, (written - 3700, written - 3700))
    other = tmp_path / ".y.0.partial"
    other.touch()
    os.utime(other, (0, 0))
    with whole(path) as file:
        file.write(b"all")
    assert {*tmp_path.iterdir()} == {path, fresh, other}
