import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from memmeta.system.files import atomic_write, check_writable, remove_abandoned

SLOW_WRITER = """
import sys
from pathlib import Path
from memmeta.system.files import atomic_write

path, content = Path(sys.argv[1]), sys.argv[2].encode()
with atomic_write(path) as file:
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
    with atomic_write(path) as file:
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
        atomic_write(tmp_path / name),
    ):
        pass


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"old")

    def fail():
        with atomic_write(path) as file:
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


def test_what_killed_writers_left_is_removed_by_the_next_and_nothing_else_is(
    tmp_path, start_writer
):
    path, other = tmp_path / "[x]", tmp_path / "y"
    killed, living, killed_other = (start_writer(of, "half") for of in (path, path, other))
    for writer in (killed, killed_other):
        writer.kill()
        writer.wait()
    assert len(list(tmp_path.iterdir())) == 3
    with atomic_write(path) as file:
        file.write(b"all")
        assert len(list(tmp_path.iterdir())) == 3  # the living writer's, the other path's, ours
    remove_abandoned(tmp_path.parent)
    assert len(list(tmp_path.iterdir())) == 2
    living.communicate("go on\n")
    assert living.returncode == 0
    assert {*tmp_path.iterdir()} == {path}
    assert path.read_text() == "half"


def test_writers_that_meet_all_get_through(tmp_path):
    def write(number):
        for _ in range(50):
            with atomic_write(tmp_path / "x") as file:
                file.write(b"%d" % number)
            remove_abandoned(tmp_path)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert list(tmp_path.iterdir()) == [tmp_path / "x"]


def test_nothing_is_made_beside_what_went_away(tmp_path):
    root = tmp_path / "mount" / "root"
    path = root / "a" / "b" / "x"
    root.mkdir(parents=True)
    with atomic_write(path, below=root) as file:
        file.write(b"all")
    assert path.read_bytes() == b"all"
    (tmp_path / "mount").rename(tmp_path / "away")
    with pytest.raises(FileNotFoundError), atomic_write(path, below=root):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["away"]


def test_devices_and_pipes_are_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for path in (tmp_path / "pipe", tmp_path / "link", Path("/dev/no-such-device")):
        with pytest.raises(OSError, match="a device or a pipe"):
            check_writable(path)
        with pytest.raises(OSError, match="a device or a pipe"), atomic_write(path):
            pass
    assert (tmp_path / "pipe").is_fifo()
