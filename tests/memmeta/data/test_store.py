import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memmeta.data import load, prepare, try_out
from memmeta.data.sets import tiered_imagenet
from memmeta.data.sources import SPLITS, NoDataError
from memmeta.errors import InputError
from tests.memmeta.data import on_disk


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("source")
    on_disk.cifar_pickles(on_disk.some_images("fc100", 32), root, "FC100", "listed")
    return root


@pytest.fixture
def root(source: Path, tmp_path: Path) -> Path:
    """A data root with the pickles of FC100 and no cache."""
    return Path(shutil.copytree(source, tmp_path / "data"))


def test_images_are_memory_mapped_and_read_only(root):
    dataset = load("fc100", root)
    for split in SPLITS:
        images = getattr(dataset, split).images
        assert isinstance(images, np.memmap)
        assert images.dtype == np.uint8
        with pytest.raises(ValueError, match="read-only"):
            images[0] = 0


def test_the_cache_is_created_once_and_does_not_need_the_source_files(root):
    folder = prepare("fc100", root)
    assert folder == root / "cache" / "fc100"
    made = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    digest = load("fc100", root).digest
    for path in root.glob("*.pickle"):
        path.unlink()
    assert prepare("fc100", root) == folder
    assert load("fc100", root).digest == digest
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == made


def test_the_digest_depends_on_every_byte_and_name(root, tmp_path):
    digest = load("fc100", root).digest
    images = on_disk.some_images("fc100", 32)
    images["val"]["lion"][1, 5, 5, 2] ^= 1
    on_disk.cifar_pickles(images, tmp_path / "changed", "FC100", "listed")
    changed = load("fc100", tmp_path / "changed").digest
    images = on_disk.some_images("fc100", 32)
    train = images["train"]
    train["ray"], train["rose"] = train["rose"], train["ray"]
    on_disk.cifar_pickles(images, tmp_path / "swapped", "FC100", "listed")
    swapped = load("fc100", tmp_path / "swapped").digest
    assert len({digest, changed, swapped}) == 3


def test_mean_and_std_of_glyphs_are_those_of_the_training_split(data_root):
    dataset = load("glyphs", data_root)
    images = np.asarray(dataset.train.images)
    assert dataset.mean == pytest.approx([images.mean()])
    assert dataset.std == pytest.approx([images.std(dtype=np.float64)])


def damage_version(folder: Path) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({**meta, "version": -1}))


def change_meta(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    change(meta)
    (folder / "meta.json").write_text(json.dumps(meta))


def damage_offsets(index: int, value: int, folder: Path) -> None:
    change_meta(folder, lambda meta: meta["splits"]["val"]["offsets"].__setitem__(index, value))


def damage_header(folder: Path) -> None:
    """A header that is not valid Python. NumPy does not catch the error of the tokenizer."""
    content = (folder / "val.npy").read_bytes()
    (folder / "val.npy").write_bytes(content.replace(b"}", b"(", 1))


def cut(path: Path, size: int) -> None:
    with path.open("r+b") as file:
        file.truncate(size)


@pytest.mark.parametrize(
    "damage",
    [
        damage_version,
        lambda folder: (folder / "meta.json").unlink(),
        lambda folder: (folder / "meta.json").write_text("{"),
        lambda folder: (folder / "meta.json").write_text("[]"),
        lambda folder: (folder / "meta.json").write_bytes(b"\xff"),
        lambda folder: (folder / "val.npy").unlink(),
        lambda folder: (folder / "meta.json").write_text("[" * 100_000),
        partial(damage_offsets, 0, 1),
        partial(damage_offsets, 1, 0),
        partial(damage_offsets, 1, 99),
        lambda folder: change_meta(folder, lambda meta: meta["mean"].pop()),
        lambda folder: change_meta(folder, lambda meta: meta["std"].append(1.0)),
        damage_header,
        lambda folder: (folder / "val.npy").write_bytes(b"PK\x03\x04" + bytes(99)),
        lambda folder: cut(folder / "val.npy", 0),
        lambda folder: cut(folder / "val.npy", 50),
        lambda folder: cut(folder / "val.npy", 5000),
        lambda folder: np.save(folder / "val.npy", np.zeros((2, 32, 32, 3), np.uint8)),
        lambda folder: np.save(folder / "val.npy", np.zeros((2, 32, 32, 3))),
        lambda folder: shutil.copy(folder / "train.npy", folder / "val.npy"),
    ],
)
def test_a_damaged_cache_is_replaced(root, damage):
    before = load("fc100", root)
    images, offsets = np.array(before.val.images), before.val.offsets
    damage(prepare("fc100", root))
    after = load("fc100", root)
    assert after.digest == before.digest
    assert np.array_equal(after.val.images, images)
    assert np.array_equal(after.val.offsets, offsets)
    assert (after.mean, after.std) == (before.mean, before.std)
    assert [path.name for path in (root / "cache").iterdir() if path.is_dir()] == ["fc100"]


def prepare_and_report(root: Path, start: Barrier, results: "multiprocessing.Queue[str]") -> None:
    start.wait()
    results.put(load("fc100", root).digest)


def test_processes_that_start_together_create_one_cache(root):
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(2), context.Queue()
    processes = [
        context.Process(target=prepare_and_report, args=(root, start, results)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    digests = {results.get(timeout=180) for _ in processes}
    for process in processes:
        process.join(timeout=180)
        assert process.exitcode == 0
    assert [path.name for path in (root / "cache").iterdir() if path.is_dir()] == ["fc100"]
    shutil.rmtree(root / "cache")
    assert digests == {load("fc100", root).digest}


def test_a_process_killed_during_writing_leaves_no_broken_cache(root):
    """The process gets SIGKILL after it has written a part of the training split."""
    code = "import sys; from pathlib import Path; from memmeta.data import prepare;"
    code += "prepare('glyphs', Path(sys.argv[1]))"
    process = subprocess.Popen([sys.executable, "-c", code, str(root)])
    written = root / "cache" / ".glyphs.partial" / "train.npy"
    deadline = time.monotonic() + 60
    while not (written.exists() and written.stat().st_size > 10_000):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert written.exists()
    assert not (root / "cache" / "glyphs").exists()
    # The lock is released, and the files left behind do not block the next process. A smaller data
    # set shows this faster.
    shutil.copytree(written.parent, written.parent.with_name(".fc100.partial"))
    assert load("fc100", root).input_shape == (3, 32, 32)
    assert not written.parent.with_name(".fc100.partial").exists()


def write_omniglot(root: Path) -> None:
    on_disk.omniglot_zips(on_disk.some_drawings(), root, zipfile.ZIP_DEFLATED)


def write_tiered(root: Path) -> None:
    classes = {split: tiered_imagenet._classes(split) for split in SPLITS}
    words = {number: words for words, number in tiered_imagenet._wordnet_ids().items()}
    on_disk.tiered_png(on_disk.patterns(classes, 84, 1, 1), root, words, None)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("omniglot", write_omniglot),
        pytest.param("tieredimagenet", write_tiered, marks=pytest.mark.thorough),
    ],
)
def test_a_waiting_process_takes_over_if_the_writer_is_killed(tmp_path, name, write):
    write(tmp_path / "data")
    code = "import sys; from pathlib import Path; from memmeta.data import load; print('go');"
    code += "sys.stdout.flush(); print(load(sys.argv[1], Path(sys.argv[2])).digest)"
    command = [sys.executable, "-c", code, name, str(tmp_path / "data")]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    written = tmp_path / "data" / "cache" / f".{name}.partial" / "train.npy"
    deadline = time.monotonic() + 60
    while not (written.exists() and written.stat().st_size > 10_000):
        assert time.monotonic() < deadline
        assert first.poll() is None
        time.sleep(0.002)
    os.kill(first.pid, signal.SIGSTOP)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as second:
        assert second.stdout is not None
        assert second.stdout.readline() == "go\n"
        time.sleep(0.5)
        assert second.poll() is None
        assert written.exists()
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        digest = second.stdout.readline().strip()
    shutil.rmtree(tmp_path / "data" / "cache")
    assert load(name, tmp_path / "data").digest == digest


def test_a_failing_source_leaves_no_cache(root):
    (root / "FC100_test.pickle").write_bytes(b"")
    with pytest.raises(InputError, match=r"FC100_test.pickle"):
        prepare("fc100", root)
    assert not [path for path in (root / "cache").iterdir() if path.is_dir()]


# Equal images ------------------------------------------------------------------------------------

COPIED = "train", "rose"


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with class folders of CIFAR-100. One class has a copy of each file."""
    root = tmp_path_factory.mktemp("copied")
    on_disk.cifar_folders(on_disk.some_images("fc100", 32), root)
    for path in (root / "cifar100" / "data" / COPIED[1]).iterdir():
        shutil.copy(path, path.with_name(f"{path.stem} (1).png"))
    return root


def check_copies(dataset: Any) -> None:
    """Compare the originals of a data set with a search over all pairs of images."""
    for split in SPLITS:
        part = getattr(dataset, split)
        if split != COPIED[0]:
            assert part.originals is None
            continue
        images, offsets = np.asarray(part.images), part.offsets
        for c, name in enumerate(part.class_names):
            rows = range(offsets[c], offsets[c + 1])
            first = [next(r for r in rows if np.array_equal(images[r], images[s])) for s in rows]
            assert part.originals[rows[0] : rows[-1] + 1].tolist() == first
            assert (len(set(first)) < len(rows)) == (name == COPIED[1])


def test_copies_are_searched_and_reported_once(copied, tmp_path, capsys):
    cache = tmp_path / "cache"
    dataset = load("fc100", copied, cache)
    check_copies(dataset)
    count = len(list((copied / "cifar100" / "data" / COPIED[1]).iterdir())) // 2
    said = capsys.readouterr().err
    assert said.startswith("fc100: images equal to another")
    assert f"{count} of train" in said
    assert said.count("\n") == 1
    check_copies(load("fc100", copied, cache))
    assert capsys.readouterr().err == ""


def remove_copies(folder: Path) -> None:
    """Remove the list of copies, which older caches do not have."""
    (folder / "copies.json").unlink()


@pytest.mark.parametrize(
    "damage",
    [
        remove_copies,
        lambda folder: (folder / "copies.json").write_text("{"),
        lambda folder: (folder / "copies.json").write_text('{"digest": "0", "train": []}'),
        lambda folder: (folder / "copies.json").write_bytes(b"\xff"),
    ],
)
def test_an_old_cache_is_kept_and_gets_a_list_of_copies(copied, tmp_path, capsys, damage):
    folder = prepare("fc100", copied, tmp_path)
    made = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    found = (folder / "copies.json").read_text()
    capsys.readouterr()
    damage(folder)
    check_copies(load("fc100", tmp_path / "nowhere", tmp_path))
    assert "of train" in capsys.readouterr().err
    assert (folder / "copies.json").read_text() == found
    for path in folder.iterdir():
        assert path.name == "copies.json" or path.stat().st_mtime_ns == made[path.name]
    check_copies(load("fc100", tmp_path / "nowhere", tmp_path))
    assert capsys.readouterr().err == ""


# Folders -----------------------------------------------------------------------------------------


@pytest.fixture
def no_rights() -> Iterator[tuple[Path, Callable[[], AbstractContextManager[None]]]]:
    """A folder, and a context in which this process cannot write to it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root = os.geteuid() == 0

        @contextmanager
        def dropped() -> Iterator[None]:
            if root:
                for path in (folder, *folder.rglob("*")):
                    path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
                os.seteuid(65534)
            else:
                for path in (*folder.rglob("*"), folder):
                    path.chmod(path.stat().st_mode & ~0o222)
            try:
                yield
            finally:
                if root:
                    os.seteuid(0)
                else:
                    for path in (folder, *folder.rglob("*")):
                        path.chmod(path.stat().st_mode | 0o200)

        yield folder, dropped


def test_a_read_only_data_root_with_a_cache_is_used(source, no_rights):
    folder, dropped = no_rights
    root = Path(shutil.copytree(source, folder / "data"))
    digest = load("fc100", root).digest
    remove_copies(root / "cache" / "fc100")
    before = sorted(folder.rglob("*"))
    with dropped():
        assert load("fc100", root).digest == digest
        try_out("fc100", root)
    assert sorted(folder.rglob("*")) == before


def test_a_read_only_data_root_is_used_with_another_cache_folder(source, no_rights, tmp_path):
    folder, dropped = no_rights
    root = Path(shutil.copytree(source, folder / "data"))
    before = sorted(root.rglob("*"))
    with dropped():
        for attempt in (load, prepare, try_out):
            with pytest.raises(InputError, match=r"fc100: the cache cannot be written .*--cache"):
                attempt("fc100", root)
        with tempfile.TemporaryDirectory() as name:
            cache = Path(name)
            try_out("fc100", root, cache)
            assert list(cache.iterdir()) == []
            digest = load("fc100", root, cache).digest
    assert sorted(root.rglob("*")) == before
    assert load("fc100", Path(shutil.copytree(source, tmp_path / "data"))).digest == digest


@pytest.mark.parametrize(
    "name", ["cifar_fs", "fc100", "miniimagenet", "tieredimagenet", "omniglot"]
)
def test_without_data_no_folder_is_created(name, tmp_path):
    for attempt in (load, prepare, try_out):
        with pytest.raises(NoDataError):
            attempt(name, tmp_path / "nodata")
    assert list(tmp_path.iterdir()) == []


def test_try_out_reports_the_errors_of_load(root, tmp_path):
    before = sorted(root.rglob("*"))
    try_out("fc100", root)
    try_out("sinusoid", root)
    assert sorted(root.rglob("*")) == before
    (root / "FC100_test.pickle").write_text("<html>Please sign in</html>")
    for attempt in (try_out, load):
        with pytest.raises(InputError, match=r"FC100_test.pickle: a web page, not a pickle"):
            attempt("fc100", root)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="the cache cannot be written"):
        try_out("glyphs", root, tmp_path / "file")


def test_an_unwritable_data_root(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/cache/glyphs: the cache cannot be written \(Not"):
        prepare("glyphs", tmp_path / "file")


def test_a_full_disk(root):
    """A limit on the file size simulates it: writes fail in the same way."""
    code = """
import resource, sys
from pathlib import Path
from memmeta.data import prepare
from memmeta.errors import InputError
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    prepare("fc100", Path(sys.argv[1]))
except InputError as error:
    print(error)
"""
    result = subprocess.run(
        [sys.executable, "-c", code, str(root)], capture_output=True, text=True, check=True
    )
    assert "the cache cannot be written (File too large)" in result.stdout
    assert not [path for path in (root / "cache").iterdir() if path.is_dir()]


def test_memory_does_not_grow_with_the_data_set(tmp_path):
    """Writing keeps one class in memory, so the peak is far below the size of the cache."""
    code = (
        on_disk.PEAK
        + """
import sys
import numpy as np
from memmeta.data import store
from memmeta.data.sources import ImageSource

def read(data_root, split):
    for i in range(80):
        yield f"{i:03d}", np.full((50, 84, 84, 3), i, dtype=np.uint8)

def one_class(data_root, split):
    yield "a", np.zeros((2, 4, 4, 3), np.uint8)

store.prepare(ImageSource("warm-up", (3, 4, 4), one_class, (0, 0, 0), (1, 1, 1)), Path(sys.argv[1]))
before = peak()
store.prepare(ImageSource("big", (3, 84, 84), read, (0, 0, 0), (1, 1, 1)), Path(sys.argv[1]))
print(peak() - before)
"""
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    written = sum(path.stat().st_size for path in (tmp_path / "cache" / "big").iterdir())
    assert written > 250_000_000
    assert int(result.stdout) < 40_000_000
