import struct
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memmeta.data import download, load
from memmeta.data.dataset import ImageDataset
from memmeta.data.formats.archives import MAX_IMAGE_BYTES, ZippedImages
from memmeta.data.sets.omniglot import OMNIGLOT, PARTS
from memmeta.data.sources import SPLITS, TaskShape, split_classes
from memmeta.errors import InputError
from tests.memmeta.data import on_disk
from tests.memmeta.data.formats.test_images import attempt

FORMS = {
    "folders": lambda drawings, root: on_disk.omniglot_folders(drawings, root / "omniglot-py"),
    "zips": partial(on_disk.omniglot_zips, compression=zipfile.ZIP_STORED),
    "small zips": partial(on_disk.omniglot_zips, compression=zipfile.ZIP_DEFLATED),
}
FOLDER = "images_background/Greek/character01"
fuzz = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=2000
)


@pytest.fixture(scope="module")
def drawings() -> dict[str, bytes]:
    return on_disk.some_drawings()


@pytest.fixture(scope="module")
def roots(drawings, tmp_path_factory) -> dict[str, Path]:
    roots = {form: tmp_path_factory.mktemp("omniglot") for form in FORMS}
    for form, write in FORMS.items():
        write(drawings, roots[form])
    return roots


@pytest.fixture(scope="module")
def datasets(roots) -> dict[str, ImageDataset]:
    return {form: load("omniglot", root) for form, root in roots.items()}


def test_class_lists():
    lists = [split_classes("omniglot_vinyals", split) for split in SPLITS]
    assert [len(names) for names in lists] == [1028, 172, 423]
    assert len({name for names in lists for name in names}) == 1623


def test_all_forms_give_the_same_data(datasets, drawings):
    assert len({dataset.digest for dataset in datasets.values()}) == 1
    dataset = datasets["folders"]
    assert dataset.input_shape == (1, 28, 28)
    counts = dict.fromkeys((name.rpartition("/")[0] for name in drawings), 0)
    for name in drawings:
        counts[name.rpartition("/")[0]] += 1
    for split in SPLITS:
        part = getattr(dataset, split)
        assert part.class_names == tuple(sorted(split_classes("omniglot_vinyals", split)))
        assert np.diff(part.offsets).tolist() == [counts[name] for name in part.class_names]


@pytest.mark.parametrize("folder", ["", "python", "omniglot/python", "omniglot-master/python"])
def test_the_folders_that_are_searched(folder, roots, datasets, tmp_path):
    place = tmp_path / folder
    place.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        (place / part).symlink_to(roots["folders"] / "omniglot-py" / part)
    name, images = next(OMNIGLOT.read(tmp_path, "test"))
    test = datasets["folders"].test
    assert name == test.class_names[0]
    assert sorted(images.tolist()) == sorted(test.images[: test.offsets[1]].tolist())


def test_images_are_light_on_dark_with_soft_edges(datasets):
    images = np.asarray(datasets["zips"].train.images)
    assert np.median(images) == 0
    assert (images.max(axis=(1, 2, 3)) > 100).all()
    grey = (images > 20) & (images < 235)
    assert grey.mean() > 0.02


def test_rotated_characters_are_further_classes(datasets):
    dataset = datasets["zips"]
    upright_shape = TaskShape(ways=172, shots=1, queries=1)
    rotated_shape = TaskShape(ways=688, shots=1, queries=0, rotations=True)
    with pytest.raises(InputError, match=r"class .* has 1"):
        dataset.episodes("val", upright_shape, seed=0, indices=[0])
    drawn = dataset.episodes("val", rotated_shape, seed=0, indices=[0])
    assert drawn.support.shape == (1, 688, 28, 28, 1)
    upright = {image.tobytes() for image in dataset.val.images}
    assert sum(image.tobytes() in upright for image in drawn.support[0].numpy()) >= 172


def test_the_error_for_missing_data_lists_the_expected_files_and_the_download(tmp_path):
    with pytest.raises(InputError) as caught:
        load("omniglot", tmp_path)
    for part in ("images_{background,evaluation}.zip", "<character>", "download omniglot"):
        assert part in str(caught.value)


def test_damaged_folders(drawings, tmp_path):
    some = {name: content for name, content in drawings.items() if FOLDER not in name}
    on_disk.omniglot_folders(some, tmp_path)
    with pytest.raises(InputError, match=f"expected PNG images of {FOLDER}, found none"):
        load("omniglot", tmp_path)
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "x.png").write_bytes(next(iter(some.values()))[:80])
    with pytest.raises(InputError, match=r"character01/x.png: not a PNG"):
        load("omniglot", tmp_path)


@pytest.mark.usefixtures("no_network")
def test_a_failed_download_is_reported(tmp_path):
    with pytest.raises(InputError, match=r"Omniglot could not be downloaded from https://"):
        download("omniglot", tmp_path)


# Zip files ---------------------------------------------------------------------------------------


def zipped(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path.read_bytes()


def read(path: Path) -> dict[str, bytes]:
    with ZippedImages(path) as archive:
        return dict(archive.read(FOLDER))


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_only_images_directly_in_the_folder_are_read(tmp_path):
    names = ["1.png", "more/2.png", "3.txt", "._1.png"]
    zipped(tmp_path / "x.zip", {f"{FOLDER}/{name}": name.encode() for name in names})
    assert read(tmp_path / "x.zip") == {f"{FOLDER}/1.png": b"1.png"}


def test_duplicate_members(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{FOLDER}/1.png", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr(f"{FOLDER}/1.png", b"1")
    assert f"{FOLDER}/1.png is listed twice" in refused(path)


@pytest.mark.parametrize(
    "name", ["../x.png", f"{FOLDER}/../../x.png", "/etc/x.png", "..\\x.png", "a/..", "../"]
)
def test_names_outside_the_archive(tmp_path, name):
    zipped(tmp_path / "x.zip", {f"{FOLDER}/1.png": b"1", name: b"2"})
    assert "outside the archive" in refused(tmp_path / "x.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["x.zip"]


def test_bombs(tmp_path):
    """Large members, and members that understate their size."""
    path = tmp_path / "x.zip"
    large = MAX_IMAGE_BYTES + 1
    data = zipped(path, {f"{FOLDER}/1.png": bytes(large)})
    assert "limit" in refused(path)
    path.write_bytes(data.replace(struct.pack("<I", large), struct.pack("<I", 100)))
    assert "damaged" in refused(path)
    zipped(path, {f"{FOLDER}/1.png": bytes(100)}, zipfile.ZIP_LZMA)
    assert "unsupported compression" in refused(path)


def test_encrypted_members(tmp_path):
    path = tmp_path / "x.zip"
    data = bytearray(zipped(path, {f"{FOLDER}/1.png": b"1"}))
    data[data.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(bytes(data))
    assert "encrypted" in refused(path)


def test_truncated_zips(tmp_path):
    path = tmp_path / "x.zip"
    data = zipped(path, {f"{FOLDER}/{i}.png": bytes(range(200)) for i in range(3)})
    for length in range(len(data)):
        path.write_bytes(data[:length])
        refused(path)


@fuzz
@given(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]), st.data())
def test_damaged_zips(tmp_path, compression, data):
    path = tmp_path / "x.zip"
    members = {f"{FOLDER}/{i}.png": bytes(range(50)) * 2 for i in range(2)}
    damaged = bytearray(zipped(path, members, compression))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(bytes(damaged))
    for name, content in (attempt(read, path) or {}).items():
        assert name.startswith(FOLDER)
        assert content == members.get(name, content)
