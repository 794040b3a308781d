import ast
import builtins
import codecs
import collections
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from memmeta.data.formats import images as formats
from memmeta.errors import InputError
from tests.memmeta.data.on_disk import dump_python2

SHAPE = (4, 4, 3)
CONTENT = {
    "data": np.arange(3 * 48, dtype=np.uint8).reshape(3, *SHAPE),
    "labels": [0, 300, 0],
}
GOOD = {
    **{f"protocol {i}": pickle.dumps(CONTENT, protocol=i) for i in range(6)},
    "array labels": pickle.dumps({**CONTENT, "labels": np.array([0, 300, 0])}),
    "scalar labels": pickle.dumps({**CONTENT, "labels": list(np.array([0, 300, 0]))}),
    "bytes keys": pickle.dumps({b"data": CONTENT["data"], b"labels": [0, 300, 0]}, protocol=2),
    "fortran": pickle.dumps({**CONTENT, "data": np.asfortranarray(CONTENT["data"])}),
    "big-endian": pickle.dumps({**CONTENT, "labels": np.array([0, 300, 0], dtype=">i4")}),
    "old NumPy": pickle.dumps(CONTENT, protocol=2).replace(b"numpy._core", b"numpy.core"),
    "Python 2": dump_python2(CONTENT),
    "ordered": pickle.dumps(collections.OrderedDict(CONTENT)),
    "ordered, Python 2": b"\x80\x02ccollections\nOrderedDict\n](]("
    + b"U\x04data"
    + dump_python2(CONTENT["data"])[2:-1]
    + b"e](U\x06labels"
    + dump_python2(CONTENT["labels"])[2:-1]
    + b"ee\x85R.",
    "default": pickle.dumps(collections.defaultdict(list, CONTENT)),
}
# Each example writes its own file, so all examples can share the folder.
fuzz = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=2000
)


def read(path: Path) -> dict[int, np.ndarray]:
    """Read a pickle of images and labels, as a data set does."""
    content = formats.read_pickle(path, "data", "labels")
    images = formats.as_images(path, "data", content["data"], SHAPE)
    groups = formats.by_label(path, images, content["labels"])
    return {label: images[where] for label, where in groups.items()}


def attempt(reader: Callable[[Path], Any], path: Path) -> Any:
    """The result of `reader`, or None if it raises a proper InputError."""
    try:
        return reader(path)
    except InputError as error:
        message = str(error)
    assert message.startswith(f"{path}: ")
    return None


def refused(reader: Callable[[Path], Any], path: Path, data: bytes) -> str:
    """The message of the error that `reader` raises for `data`."""
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        reader(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("form", GOOD)
def test_good_pickles(form, tmp_path):
    path = tmp_path / "x.pickle"
    path.write_bytes(GOOD[form])
    groups = read(path)
    assert list(groups) == [0, 300]
    assert np.array_equal(groups[0], CONTENT["data"][[0, 2]])
    assert np.array_equal(groups[300], CONTENT["data"][[1]])


@pytest.mark.parametrize("form", GOOD)
def test_truncated_pickles(form, tmp_path):
    for length in range(len(GOOD[form])):
        refused(read, tmp_path / "x.pickle", GOOD[form][:length])


@fuzz
@given(st.sampled_from(sorted(GOOD)), st.data())
def test_damaged_pickles(tmp_path, form, data):
    """They are refused, or the result has the right types and shapes."""
    damaged = bytearray(GOOD[form])
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path / "x.pickle"
    path.write_bytes(bytes(damaged))
    for label, images in (attempt(read, path) or {}).items():
        assert isinstance(label, int)
        assert images.dtype == np.uint8
        assert images.shape[1:] == SHAPE


@fuzz
@given(st.binary(max_size=60))
@example(b"")
@example(b"\x80\x04.")
def test_random_bytes_are_refused(tmp_path, data):
    refused(read, tmp_path / "x.pickle", data)


class Calls:
    """An object that is pickled as a call of `function` with `args`."""

    def __init__(self, function: object, *args: object) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"data": [x]}, lambda x: (x, x)])
@pytest.mark.parametrize(
    ("function", "named"),
    [
        (os.system, "posix.system"),
        (eval, "builtins.eval"),
        (exec, "builtins.exec"),
        (builtins.__import__, "builtins.__import__"),
        (getattr, "builtins.getattr"),
        (np.load, "numpy.load"),
        (np.fromfile, "numpy.fromfile"),
        (ast.literal_eval, "ast.literal_eval"),
        (io.open, "io.open"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_no_code_is_run(tmp_path, wrap, function, named, protocol):
    canary = tmp_path / "canary"
    call = Calls(function, f"touch {canary}")
    message = refused(read, tmp_path / "x.pickle", pickle.dumps(wrap(call), protocol=protocol))
    assert "refused" in message
    assert named in message.replace("__builtin__", "builtins")
    assert not canary.exists()


@pytest.mark.parametrize("hide", [
    lambda call: Calls(np.dtype, call),
    lambda call: Calls(np.ndarray, (2,), call),
    lambda call: {call: 1},
    lambda call: np.array([call, call], dtype=object),
])  # fmt: skip
def test_no_code_is_run_inside_admitted_types(tmp_path, hide):
    canary = tmp_path / "canary"
    content = {"data": hide(Calls(os.system, f"touch {canary}")), "labels": [0]}
    message = refused(read, tmp_path / "x.pickle", pickle.dumps(content))
    assert "posix.system" in message or "array type 'O8'" in message
    assert not canary.exists()


def test_the_canary_detects_a_call(tmp_path):
    """The tests above would notice if code were run."""
    canary = tmp_path / "canary"
    pickle.loads(pickle.dumps(Calls(os.system, f"touch {canary}")))
    assert canary.exists()


@pytest.mark.parametrize(
    "dtype", ["O", "V8", "S4", "U4", "M8[s]", [("x", "O")], [("x", "u1")], "c16"]
)
def test_only_arrays_of_numbers_are_read(tmp_path, dtype):
    content = {"data": np.zeros(4, dtype=dtype), "labels": [0]}
    assert "array type" in refused(read, tmp_path / "x.pickle", pickle.dumps(content))


def test_stand_ins_cannot_be_modified(tmp_path):
    """Opcode BUILD sets attributes, which must not work on stand-ins."""
    for name in (b"numpy\ndtype", b"numpy\nndarray", b"numpy._core.multiarray\n_reconstruct"):
        for state in (b"N}X\x04\x00\x00\x00codeK\x01s\x86", b"}X\x04\x00\x00\x00codeK\x01s"):
            refused(read, tmp_path / "x.pickle", b"\x80\x02c" + name + b"\n" + state + b"b.")
    test_good_pickles("protocol 4", tmp_path)


def nested_tuples(depth: int) -> bytes:
    """A tuple that contains the same tuple twice, and so on: its hash takes 2^depth steps."""
    return b")" + b"".join(b"q%c0h%ch%c\x86" % (i, i, i) for i in range(depth))


def colliding_keys() -> bytes:
    """The pickle of a dict of 100,000 integers that all have the hash 0."""
    keys = ((i * (2**61 - 1)).to_bytes(10, "little") for i in range(100_000))
    return b"\x80\x02}(" + b"".join(b"\x8a\x0a" + key + b"K\x00" for key in keys) + b"u."


BOMBS = [
    b"\x80\x02}" + nested_tuples(100) + b"K\x01s.",
    b"\x80\x02(" + nested_tuples(100) + b"K\x01d.",
    b"\x80\x04\x8f(" + nested_tuples(100) + b"\x90.",
    colliding_keys(),
    b"\x80\x02N" + b"r\xff\xff\xff\xff" + b".",
    b"\x80\x05\x96" + struct.pack("<Q", 2**36) + b"x.",
    b"\x80\x05\x8e" + struct.pack("<Q", 2**36) + b"x.",
    b"\x80\x05\x95" + struct.pack("<Q", 2**36) + b"x.",
    b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    b"\x80\x02" + b")" + b"\x85" * 100_000 + b".",
    b"\x80\x02cnumpy\nndarray\n(J\x00\x00\x00\x40J\x00\x00\x00\x40t\x85R.",
    pickle.dumps({"data": CONTENT["data"], "labels": [0]}).replace(b"K\x04", b"K\xff"),
]


def test_bombs(tmp_path):
    """Small files that need unlimited time or memory, in a process limited to 4 GiB."""
    for i, data in enumerate(BOMBS):
        (tmp_path / f"{i:02d}.pickle").write_bytes(data)
    code = f"""
import resource
from pathlib import Path
from memmeta.data.formats import images as formats
from memmeta.errors import InputError
resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))
for path in sorted(Path({str(tmp_path)!r}).iterdir()):
    try:
        formats.read_pickle(path, "data", "labels")
    except InputError:
        print("refused", path.name, flush=True)
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    expected = "".join(f"refused {i:02d}.pickle\n" for i in range(len(BOMBS)))
    assert result.stdout == expected, result.stderr


def test_missing_pickles(tmp_path):
    with pytest.raises(InputError, match=r"missing: cannot be read \("):
        formats.read_pickle(tmp_path / "missing")
    with pytest.raises(InputError, match=r"cannot be read \("):
        formats.read_pickle(tmp_path)


# Images ------------------------------------------------------------------------------------------


def encoded(kind: str) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


IMAGES = {kind: encoded(kind) for kind in ("PNG", "JPEG")}


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA", "1"])
def test_good_images(tmp_path, mode):
    path = tmp_path / "x.png"
    Image.new(mode, (16, 16)).save(path)
    image = formats.read_image(path, 16)
    assert image.shape == (16, 16, 3)
    assert image.dtype == np.uint8


@fuzz
@given(st.sampled_from(sorted(IMAGES)), st.data())
def test_damaged_images(tmp_path, kind, data):
    damaged = bytearray(IMAGES[kind])
    if data.draw(st.booleans()):
        del damaged[data.draw(st.integers(0, len(damaged) - 3)) :]
    else:
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path / "x.img"
    path.write_bytes(bytes(damaged))
    image = attempt(lambda path: formats.read_image(path, 16), path)
    assert image is None or image.shape == (16, 16, 3)


def test_an_oversized_image(tmp_path):
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    path = tmp_path / "x.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + IMAGES["PNG"][33:])
    with pytest.raises(InputError, match=r"x.png: "):
        formats.read_image(path, 16, resize=True)


def test_other_image_formats_are_refused(tmp_path):
    path = tmp_path / "x.png"
    Image.new("RGB", (16, 16)).save(path, "BMP")
    with pytest.raises(InputError, match="not a PNG or JPEG image"):
        formats.read_image(path, 16)


# HDF5, JSON, CSV ---------------------------------------------------------------------------------

STACK = np.random.default_rng(0).integers(0, 256, (5, *SHAPE), dtype=np.uint8)


@given(
    st.sampled_from([None, (1, *SHAPE), (2, 4, 2, 3), (9, *SHAPE)]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
@fuzz
def test_plain_hdf5_datasets_are_read(tmp_path, chunks, compressed, shuffled, checked):
    path = tmp_path / "x.hdf5"
    options = {"chunks": chunks, "maxshape": (None, *SHAPE)} if chunks else {}
    if chunks:
        options |= {"shuffle": shuffled, "fletcher32": checked}
        options |= {"compression": "gzip"} if compressed else {}
    with h5py.File(path, "w") as file:
        file.create_group("elsewhere").create_dataset("y", data=STACK, **options)
        file.create_group("datasets")["cat"] = file["elsewhere/y"]  # a second hard link
    assert np.array_equal(formats.read_hdf5(path, "cat", SHAPE), STACK)


def linked_softly(file: h5py.File, _other: Path) -> None:
    file["other"] = STACK
    file.create_group("datasets")["cat"] = h5py.SoftLink("/other")


def group_linked_softly(file: h5py.File, _other: Path) -> None:
    file.create_group("others")["cat"] = STACK
    file["datasets"] = h5py.SoftLink("/others")


def linked_to_another_file(file: h5py.File, other: Path) -> None:
    file.create_group("datasets")["cat"] = h5py.ExternalLink(str(other), "/datasets/cat")


def group_linked_to_another_file(file: h5py.File, other: Path) -> None:
    file["datasets"] = h5py.ExternalLink(str(other), "/datasets")


def stored_elsewhere(file: h5py.File, other: Path) -> None:
    external = [(str(other), 0, STACK.nbytes)]
    file.create_group("datasets").create_dataset("cat", STACK.shape, "u1", external=external)


def virtual(file: h5py.File, other: Path) -> None:
    layout = h5py.VirtualLayout(STACK.shape, "u1")
    layout[:] = h5py.VirtualSource(str(other), "datasets/cat", STACK.shape)
    file.create_group("datasets").create_virtual_dataset("cat", layout)


def virtual_of_itself(file: h5py.File, _other: Path) -> None:
    layout = h5py.VirtualLayout(STACK.shape, "u1")
    layout[:] = h5py.VirtualSource(".", "datasets/cat", STACK.shape)
    file.create_group("datasets").create_virtual_dataset("cat", layout)


def a_group(file: h5py.File, _other: Path) -> None:
    file.create_group("datasets/cat")


def a_dataset_for_the_group(file: h5py.File, _other: Path) -> None:
    file["datasets"] = np.zeros(3, [("cat", "u1")])


def a_type(file: h5py.File, _other: Path) -> None:
    file.create_group("datasets")["cat"] = np.dtype("u1")


def compressed_by(**options: object) -> Callable[[h5py.File, Path], None]:
    def write(file: h5py.File, _other: Path) -> None:
        file.create_group("datasets").create_dataset("cat", data=STACK, **options)

    return write


@pytest.mark.parametrize(
    "write",
    [
        linked_softly,
        group_linked_softly,
        linked_to_another_file,
        group_linked_to_another_file,
        stored_elsewhere,
        virtual,
        virtual_of_itself,
        a_group,
        a_dataset_for_the_group,
        a_type,
        compressed_by(compression="lzf"),
        compressed_by(scaleoffset=0),
    ],
)
def test_other_hdf5_datasets_are_refused(tmp_path, write):
    other, path = tmp_path / "other.hdf5", tmp_path / "x.hdf5"
    with h5py.File(other, "w") as file:
        file.create_group("datasets")["cat"] = STACK
    assert np.array_equal(formats.read_hdf5(other, "cat", SHAPE), STACK)
    with h5py.File(path, "w") as file:
        write(file, other)
    with pytest.raises(InputError, match=r"x.hdf5: .*datasets/cat") as caught:
        formats.read_hdf5(path, "cat", SHAPE)
    assert "\n" not in str(caught.value)


BOMS = {"utf-8": b"", "utf-8-sig": codecs.BOM_UTF8, "utf-16-le": codecs.BOM_UTF16_LE,
        "utf-16-be": codecs.BOM_UTF16_BE}  # fmt: skip


@pytest.mark.parametrize("encoding", BOMS)
@pytest.mark.parametrize(
    "header", ["filename,label", "Filename, Label ", "image_name,class_name", "label,FILENAME,size"]
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_tables_in_common_encodings(tmp_path, encoding, header, end):
    path = tmp_path / "x.csv"
    rows = [("a 1.png", "kätt"), ("b.png", "dog"), ("c.png", "kätt")]
    order = -1 if header.startswith("label") else 1
    lines = [header, *(", ".join(row[::order]) + ",9" for row in rows), ""]
    bom = BOMS[encoding]
    path.write_bytes(bom + end.join(lines).encode(encoding.removesuffix("-sig")))
    assert formats.read_table(path) == {"kätt": ["a 1.png", "c.png"], "dog": ["b.png"]}


@pytest.mark.parametrize("encoding", BOMS)
def test_lists_in_common_encodings(tmp_path, encoding):
    path = tmp_path / "x.json"
    text = '["kätt", "dog"]\r\n'.encode(encoding.removesuffix("-sig"))
    path.write_bytes(BOMS[encoding] + text)
    assert formats.read_names(path) == ["kätt", "dog"]


@given(st.lists(st.sampled_from("abcdefgh"), min_size=1), st.data())
@fuzz
def test_duplicate_names_are_an_error(tmp_path, names, data):
    path = tmp_path / "x"
    labels = [data.draw(st.sampled_from("xyz")) for _ in names]
    readers = {
        formats.read_names: json.dumps(names),
        formats.read_table: "\n".join(
            ["filename,label", *(f"{a},{b}" for a, b in zip(names, labels, strict=True))]
        ),
    }
    for reader, text in readers.items():
        path.write_text(text)
        if len(set(names)) == len(names):
            result = reader(path)
            files = (
                result
                if isinstance(result, list)
                else [f for some in result.values() for f in some]
            )
            assert sorted(files) == sorted(names)
        else:
            with pytest.raises(InputError, match=r"x: .*[a-h] is listed twice"):
                reader(path)


@pytest.mark.parametrize(
    "header", ["name,label", "filename", "filename,label,Label", "filename,image_name,size", ""]
)
def test_tables_without_their_columns(tmp_path, header):
    path = tmp_path / "x.csv"
    path.write_text(f"{header}\na,b,c\n")
    with pytest.raises(InputError, match="not a CSV file with the columns filename and label"):
        formats.read_table(path)


@fuzz
@given(st.data())
def test_truncated_hdf5(tmp_path, data):
    whole, path = tmp_path / "whole.hdf5", tmp_path / "x.hdf5"
    if not whole.exists():
        with h5py.File(whole, "w") as file:
            file.create_group("datasets").create_dataset("cat", data=CONTENT["data"])
        assert np.array_equal(formats.read_hdf5(whole, "cat", SHAPE), CONTENT["data"])
    content = whole.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(InputError, match=r"x.hdf5: .*not an HDF5 file"):
        formats.read_hdf5(path, "cat", SHAPE)


@fuzz
@given(st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
@example(b"[" * 100_000)
@example(b'"text"')
@example(b"filename,label\n" + b"x" * 200_000 + b",y")
@example(b"filename,label\nx\x00,y")
def test_random_text_as_json_or_csv(tmp_path, data):
    path = tmp_path / "x"
    path.write_bytes(data)
    for reader in (formats.read_names, formats.read_table):
        assert all(isinstance(name, str) for name in attempt(reader, path) or ())
