import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memmeta.data import load
from memmeta.data.formats.npz import NpzRows
from memmeta.data.formats.png_pickle import PngList
from memmeta.data.sets import tiered_imagenet
from memmeta.data.sources import SPLITS
from memmeta.errors import InputError
from tests.memmeta.data import on_disk
from tests.memmeta.data.formats.test_images import Calls, attempt, refused

CLASSES = {split: tiered_imagenet._classes(split) for split in SPLITS}
WORDS = {wordnet_id: words for words, wordnet_id in tiered_imagenet._wordnet_ids().items()}
IDS = {wordnet_id: wordnet_id for wordnet_id in WORDS}
SHAPE = (84, 84, 3)

FORMS: dict[str, Callable[[dict[str, on_disk.ByClass], Path], None]] = {
    "PNG, Python 2": lambda images, root: on_disk.tiered_png(images, root, WORDS, None),
    "PNG, protocol 3": lambda images, root: on_disk.tiered_png(images, root, WORDS, 3),
    "PNG, protocol 4": lambda images, root: on_disk.tiered_png(images, root, IDS, 4),
    "PNG, protocol 5": lambda images, root: on_disk.tiered_png(images, root, WORDS, 5),
    "npz": on_disk.tiered_npz,
}
fuzz = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=2000
)


@pytest.fixture(scope="module")
def images() -> dict[str, on_disk.ByClass]:
    return on_disk.patterns(CLASSES, 84, 1, 2)


def test_class_lists():
    assert [len(CLASSES[split]) for split in SPLITS] == [351, 97, 160]
    assert {name for names in CLASSES.values() for name in names} == WORDS.keys()


@pytest.fixture(scope="module")
def digests(images, tmp_path_factory) -> dict[str, str]:
    digests = {}
    for form, write in FORMS.items():
        root = tmp_path_factory.mktemp("tiered")
        write(images, root / "tiered-imagenet")
        dataset = load("tieredimagenet", root)
        digests[form] = dataset.digest
        assert dataset.input_shape == (3, 84, 84)
        for split in SPLITS:
            part = getattr(dataset, split)
            assert part.class_names == tuple(sorted(images[split]))
            for i, name in enumerate(part.class_names):
                stored = part.images[part.offsets[i] : part.offsets[i + 1]]
                assert {x.tobytes() for x in stored} == {x.tobytes() for x in images[split][name]}
    return digests


def test_all_forms_give_the_same_data(digests):
    assert len(set(digests.values())) == 1


def test_the_error_for_missing_data_lists_the_expected_files(tmp_path):
    with pytest.raises(InputError) as caught:
        load("tieredimagenet", tmp_path)
    for part in ("images_png.pkl", "images.npz", "labels.pkl", str(tmp_path / "tiered-imagenet")):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("labels"), "expected a dict with label_specific or labels"),
        (lambda c: c["labels"].pop(), r"\d+ labels for \d+ images"),
        (lambda c: c.update(labels=[0] * len(c["labels"])), "expected 97 labels, .* 1$"),
        (lambda c: c.update(labels=["x"] * len(c["labels"])), "expected a list of integers"),
    ],
)
def test_wrong_labels(images, tmp_path, change, message):
    on_disk.tiered_npz(images, tmp_path)
    path = tmp_path / "val_labels.pkl"
    content = pickle.loads(path.read_bytes())
    change(content)
    on_disk.dump(content, path)
    with pytest.raises(InputError, match=message) as caught:
        list(tiered_imagenet.read_split(tmp_path, "val"))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "names", [None, [], ["x"], [1] * 97, ["x"] * 97, [[]] * 97, CLASSES["test"][:97]]
)
def test_useless_class_names_are_ignored(images, tmp_path, names):
    on_disk.tiered_npz(images, tmp_path)
    expected = [name for name, _ in tiered_imagenet.read_split(tmp_path, "val")]
    content = pickle.loads((tmp_path / "val_labels.pkl").read_bytes())
    on_disk.dump({**content, "label_specific_str": names}, tmp_path / "val_labels.pkl")
    assert [name for name, _ in tiered_imagenet.read_split(tmp_path, "val")] == expected


# Pickles of PNG images ---------------------------------------------------------------------------

PICTURES = on_disk.patterns({"": ["a"]}, 84, 5, 5)[""]["a"]
PNGS = [on_disk.png(image) for image in PICTURES]
GOOD = {
    "Python 2": on_disk.dump_python2(PNGS),
    **{f"protocol {i}": pickle.dumps(PNGS, protocol=i) for i in (3, 4, 5)},
    "rows": pickle.dumps([some.ravel() for some in PNGS]),
}


def read_pngs(path: Path) -> np.ndarray:
    images = PngList(path)
    return images.read(np.arange(len(images)), 84)


@pytest.mark.parametrize("form", GOOD)
def test_good_lists(form, tmp_path):
    path = tmp_path / "x.pkl"
    path.write_bytes(GOOD[form])
    assert np.array_equal(read_pngs(path), PICTURES)
    assert np.array_equal(PngList(path).read(np.array([3, 1]), 84), PICTURES[[3, 1]])


@pytest.mark.parametrize("form", GOOD)
def test_truncated_lists(form, tmp_path):
    for length in [*range(200), *range(200, len(GOOD[form]), 997), len(GOOD[form]) - 1]:
        refused(read_pngs, tmp_path / "x.pkl", GOOD[form][:length])


@fuzz
@given(st.sampled_from(sorted(GOOD)), st.data())
def test_damaged_lists(tmp_path, form, data):
    damaged = bytearray(GOOD[form])
    for _ in range(data.draw(st.integers(1, 4))):
        # Most of the file is pixels; the rest is at both ends.
        position = data.draw(st.integers(0, 400) | st.integers(-40, -1))
        damaged[position] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path / "x.pkl"
    path.write_bytes(bytes(damaged))
    images = attempt(read_pngs, path)
    assert images is None or images.shape[1:] == SHAPE


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": PNGS}, "not a pickle of|expected a list"),
        (PNGS[0], "expected a list"),
        ([b"text"], "an item is not an array"),
        ([PNGS], "an item is not an array"),
        ([1], "an item is not an array"),
        ([PNGS[0].astype(np.int16)], "an array does not contain bytes"),
        ([PICTURES[0]], "image 0: not a PNG"),
        ([on_disk.png(PICTURES[0][:50])], "image 0: expected 84x84 pixels, .* 84x50"),
        ([np.zeros(2**21, np.uint8)], "image of 2097152 bytes"),
    ],
)
def test_other_lists(tmp_path, content, message):
    assert re.search(message, refused(read_pngs, tmp_path / "x.pkl", pickle.dumps(content)))


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: [x], lambda x: [*PNGS, x]])
def test_no_code_is_run(tmp_path, wrap, protocol):
    canary = tmp_path / "canary"
    content = wrap(Calls(os.system, f"touch {canary}"))
    if protocol == 2:
        content = Calls(os.system, f"touch {canary}")
    message = refused(read_pngs, tmp_path / "x.pkl", pickle.dumps(content, protocol=protocol))
    assert "refused" in message
    assert "posix.system" in message
    assert not canary.exists()


STATE = b"}(X\x05\x00\x00\x00startK\x05X\x04\x00\x00\x00sizeK\xffu"
MALICIOUS = [
    on_disk.dump_python2(PNGS).replace(b"e.", b"2e."),
    b"\x80\x02](U\x03abc" + STATE + b"be.",
    b"\x80\x02](U\x03abcN" + STATE + b"\x86be.",
    b"\x80\x02]N}(X\x06\x00\x00\x00starts](K\x01eu\x86b.",
    b"\x80\x02]](ee.",
    b"\x80\x02](T\xff\xff\xff\xffe.",
    b"\x80\x04](\x8e" + b"\xff" * 8 + b"e.",
    b"\x80\x05](\x96" + b"\xff" * 7 + b"\x0fe.",
    b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b".",
    b"\x80\x02](r\xff\xff\xff\xff" + b"h\x00e.",
]


@pytest.mark.parametrize("data", MALICIOUS)
def test_malicious_opcodes(tmp_path, data):
    refused(read_pngs, tmp_path / "x.pkl", data)


# Arrays of images --------------------------------------------------------------------------------


def read_npz(path: Path) -> np.ndarray:
    images = NpzRows(path, "images", SHAPE)
    return images.read(np.arange(len(images)))


def npz(path: Path, save: Callable[..., None] = np.savez, **arrays: object) -> bytes:
    save(path, **arrays)
    return path.read_bytes()


def test_good_arrays(tmp_path):
    path = tmp_path / "x.npz"
    npz(path, labels=np.arange(5), images=PICTURES)
    assert np.array_equal(read_npz(path), PICTURES)
    assert np.array_equal(NpzRows(path, "images", SHAPE).read(np.array([3, 1])), PICTURES[[3, 1]])


@pytest.mark.parametrize(
    ("save", "arrays", "message"),
    [
        (np.savez, {"data": PICTURES}, "damaged: expected uint8"),
        (np.savez, {"images": PICTURES.astype(np.float32)}, r"got float32 \[5, 84, 84, 3\]"),
        (np.savez, {"images": PICTURES[:, :50]}, r"got uint8 \[5, 50, 84, 3\]"),
        (np.savez, {"images": np.uint8(1)}, r"got uint8 \[\]"),
        (np.savez, {"images": np.array([{}], dtype=object)}, "got object"),
        (np.savez, {"images": np.asfortranarray(PICTURES)}, "not an .npz file, or damaged"),
        (np.savez_compressed, {"images": PICTURES}, "images is compressed"),
    ],
)
def test_other_arrays(tmp_path, save, arrays, message):
    path = tmp_path / "x.npz"
    npz(path, save, **arrays)
    with pytest.raises(InputError, match=message):
        read_npz(path)


def test_arrays_whose_shape_exceeds_the_file(tmp_path):
    path = tmp_path / "x.npz"
    data = npz(path, images=PICTURES)
    refused(read_npz, path, data.replace(b"(5, 84", b"(9, 84"))


def test_truncated_arrays(tmp_path):
    path = tmp_path / "x.npz"
    data = npz(path, images=PICTURES)
    for length in [*range(300), *range(300, len(data), 4999), *range(len(data) - 120, len(data))]:
        refused(read_npz, path, data[:length])


@fuzz
@given(st.data())
def test_damaged_arrays(tmp_path, data):
    whole = tmp_path / "whole.npz"
    damaged = bytearray(whole.read_bytes() if whole.exists() else npz(whole, images=PICTURES))
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, 200) | st.integers(-120, -1))
        damaged[position] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path / "x.npz"
    path.write_bytes(bytes(damaged))
    images = attempt(read_npz, path)
    assert images is None or images.shape[1:] == SHAPE


@pytest.mark.parametrize("form", ["png", "npz"])
def test_memory_does_not_grow_with_the_file(tmp_path, form):
    """Reading a file in hundredths takes much less memory than the size of the file."""
    noise = np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8)
    if form == "png":
        path = tmp_path / "x.pkl"
        encoded = on_disk.png(noise)
        path.write_bytes(pickle.dumps([encoded.copy() for _ in range(4000)], protocol=4))
        reader = "PngList(path).read(rows, 84)"
    else:
        path = tmp_path / "x.npz"
        np.savez(path, images=np.broadcast_to(noise, (4000, *SHAPE)))
        reader = "NpzRows(path, 'images', (84, 84, 3)).read(rows)"
    code = f"""{on_disk.PEAK}
import sys
import numpy as np
from memmeta.data.formats.npz import NpzRows
from memmeta.data.formats.png_pickle import PngList
path = Path(sys.argv[1])
before = peak()
for rows in np.array_split(np.arange(4000), 100)[::20]:
    assert len({reader}) == 40
print(peak() - before)
"""
    result = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert path.stat().st_size > 80_000_000
    assert int(result.stdout) < 15_000_000
