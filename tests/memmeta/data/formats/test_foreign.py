"""Checks shared by all readers of untrusted files: recognition of formats, and memory limits."""

import collections
import gzip
import io
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memmeta.data.formats import images as formats
from memmeta.data.formats.archives import ZippedImages
from memmeta.data.formats.foreign import Budget
from memmeta.data.formats.npz import NpzRows
from memmeta.data.formats.png_pickle import PngList
from memmeta.errors import InputError
from tests.memmeta.data import on_disk
from tests.memmeta.data.formats.test_images import Calls

SHAPE = (84, 84, 3)
READERS = {
    "pickle": lambda path: formats.read_pickle(path, "data"),
    "list of images": PngList,
    "image": lambda path: formats.read_image(path, 32),
    "HDF5": lambda path: formats.read_hdf5(path, "cat", SHAPE),
    "npz": lambda path: NpzRows(path, "images", SHAPE),
    "zip": ZippedImages,
    "JSON": formats.read_names,
    "CSV": formats.read_table,
}


def tarred() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("x.pkl"))
    return out.getvalue()


KINDS = {
    "an empty file": b"",
    "a web page": b"\n<!DOCTYPE html>\n<html><title>Sign in</title></html>",
    "an XML document": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    "a git-annex pointer": b"/annex/objects/SHA256E-s9--0.pkl\n",
    "a gzip file": gzip.compress(pickle.dumps({"data": 1})),
    "a tar file": tarred(),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reader", READERS)
def test_the_actual_format_of_a_file_is_named(tmp_path, reader, kind):
    path = tmp_path / "x"
    path.write_bytes(KINDS[kind])
    with pytest.raises(InputError) as caught:
        READERS[reader](path)
    message = str(caught.value)
    assert message.startswith(f"{path}: {kind}")
    assert ", not a" in message
    assert "\n" not in message


@pytest.mark.parametrize("reader", READERS)
def test_pipes_folders_and_missing_files_are_refused_at_once(tmp_path, reader):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name, reason in (("pipe", "a pipe"), ("folder", "a folder"), ("missing", "No such file")):
        with pytest.raises(InputError, match=rf"{name}: cannot be read \({reason}"):
            READERS[reader](tmp_path / name)


# Memory ------------------------------------------------------------------------------------------


@given(st.integers(0, 2**40), st.lists(st.integers(0, 2**40), max_size=6))
def test_a_budget_limits_the_sum(size, parts):
    budget, total = Budget("x", size), 2**26 + 16 * size
    for index, part in enumerate(parts):
        if sum(parts[: index + 1]) > total:
            with pytest.raises(InputError, match=f"^x: refused: .* a file of {size} bytes"):
                budget.take(part)
            return
        budget.take(part)


def amplified() -> bytes:
    """One text that is encoded many times, by the call that old NumPy pickles use."""
    text = "x" * 2**20
    calls = [Calls(__import__("_codecs").encode, text, "latin1") for _ in range(3000)]
    return pickle.dumps({"data": calls, "labels": []}, protocol=2)


def pairs_again() -> bytes:
    """One list of pairs that is converted to an OrderedDict many times."""
    pairs = [[i, i] for i in range(20_000)]
    calls = [Calls(collections.OrderedDict, pairs) for _ in range(3000)]
    return pickle.dumps({"data": calls, "labels": []}, protocol=2)


def listed_again() -> bytes:
    """One array as the indices of many classes. Each class would get a copy of 8 MB."""
    classes = dict.fromkeys((f"c{i}" for i in range(3000)), np.zeros(2**20, np.uint8))
    return pickle.dumps({"image_data": 0, "class_dict": classes}, protocol=4)


def named_again() -> bytes:
    """One long name, as bytes from Python 2, for every class."""
    name = b"x" * 2**20
    return pickle.dumps({"fine_label_names": [name] * 3000}, protocol=2)


def opcodes(one: bytes) -> bytes:
    """1 MB of opcodes that create larger objects."""
    return b"\x80\x04" + one * (2**20 // len(one)) + b"."


def empty_chunks() -> bytes:
    """A dataset of 1 GB without stored chunks."""
    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        group = file.create_group("datasets")
        group.create_dataset("cat", (50_000, *SHAPE), "u1", chunks=(1, *SHAPE))
    return out.getvalue()


def large_chunk() -> bytes:
    """A dataset of one image in a chunk for 50,000."""
    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        file.create_group("datasets").create_dataset(
            "cat", (1, *SHAPE), "u1", chunks=(50_000, *SHAPE), maxshape=(None, *SHAPE)
        )
    return out.getvalue()


def inflating_chunk() -> bytes:
    """A chunk of one image that inflates to 256 MB."""
    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        data = file.create_group("datasets").create_dataset(
            "cat", (1, *SHAPE), "u1", chunks=(1, *SHAPE), compression="gzip"
        )
        data.id.write_direct_chunk((0, 0, 0, 0), zlib.compress(bytes(2**28), 1))
    return out.getvalue()


def large_members() -> bytes:
    """A folder of 3,000 files of 1 MB each, which share their compressed bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("a/0.png", bytes(2**20))
        info = archive.infolist()[0]
        # All members point to the content of the first.
        for i in range(1, 3000):
            other = zipfile.ZipInfo(f"a/{i}.png")
            for field in ("header_offset", "CRC", "compress_size", "file_size", "compress_type"):
                setattr(other, field, getattr(info, field))
            archive.filelist.append(other)
            archive._didModify = True
    return out.getvalue()


def large_picture() -> bytes:
    """A PNG of 60 megapixels with a single colour."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", 9000, 6700, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(6700 * (3 * 9000 + 1)), 1)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


BOMBS = [
    ("read_pickle(path, 'data', 'labels')", amplified),
    ("read_pickle(path, 'data', 'labels')", pairs_again),
    ("read_pickle(path, 'data', 'labels')", lambda: opcodes(b"}\x94")),
    ("read_pickle(path, 'data', 'labels')", lambda: opcodes(b"(")),
    ("as_indices(path, '', read_pickle(path)['class_dict'])", listed_again),
    ("as_texts(path, '', read_pickle(path)['fine_label_names'])", named_again),
    ("read_hdf5(path, 'cat', (84, 84, 3))", empty_chunks),
    ("read_hdf5(path, 'cat', (84, 84, 3))", large_chunk),
    ("read_hdf5(path, 'cat', (84, 84, 3))", inflating_chunk),
    ("list(ZippedImages(path).read('a'))", large_members),
    ("read_image(path, 84, resize=True)", large_picture),
    ("PngList(path)", lambda: opcodes(b"U\x00")),
    ("read_names(path)", lambda: b"[" + b"[]," * 8_000_000 + b"[]]"),
    ("read_table(path)", lambda: b"filename,label\n" + b"a,b\n" * 6_000_000),
]


def test_memory_is_bounded_by_the_size_of_the_file(tmp_path):
    """One process refuses all bombs, and its memory stays within the largest budget."""
    attempts, allowed = [], 0
    for code, make in BOMBS:
        content = make()
        path = tmp_path / f"{len(attempts)}"
        path.write_bytes(content)
        attempts.append((code, str(path)))
        # Lists are refused because of their size alone.
        size = 0 if code.startswith(("read_names", "read_table")) else len(content)
        allowed = max(allowed, 2**26 + 16 * size)
    program = f"""{on_disk.PEAK}
from memmeta.data.formats.archives import ZippedImages
from memmeta.data.formats.images import *
from memmeta.data.formats.png_pickle import PngList
before = peak()
for code, name in {attempts!r}:
    path = Path(name)
    try:
        eval(code)
        print("read:", code)
    except InputError as error:
        assert str(error).startswith(name), error
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip().isdigit(), done.stdout + done.stderr
    assert allowed < 2**27
    # Factor 2: opcodes are charged with their average memory in lists of numbers.
    assert int(done.stdout) < 2 * allowed


def test_common_pickles_are_within_the_budget(tmp_path):
    """Includes the least efficient form, where every label is an array scalar."""
    labels = np.arange(20_000) % 300
    path = tmp_path / "x.pkl"
    for content in (labels, labels.tolist(), list(labels), list(labels.astype(np.int32))):
        for protocol in (2, 4):
            path.write_bytes(pickle.dumps({"labels": content}, protocol=protocol))
            integers = formats.as_integers(path, "", formats.read_pickle(path)["labels"])
            assert np.array_equal(integers, labels)
    pixels = np.random.default_rng(0).integers(0, 256, (2000, 32, 32, 3), dtype=np.uint8)
    path.write_bytes(pickle.dumps({"data": pixels}, protocol=2))
    assert np.array_equal(formats.read_pickle(path)["data"], pixels)
