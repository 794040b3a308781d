import pickle

import numpy as np
import pytest
from PIL import Image

from memmeta.data import download, load
from memmeta.data.sets import cifar
from memmeta.data.sources import SPLITS, split_classes
from memmeta.errors import InputError
from tests.memmeta.data import on_disk

STEMS = {"cifar_fs": "CIFAR_FS", "fc100": "FC100"}


@pytest.fixture(scope="module", params=sorted(STEMS))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def images(name: str) -> dict[str, on_disk.ByClass]:
    return on_disk.some_images(name, 32)


def test_class_lists():
    sizes = {"cifar_fs": [64, 16, 20], "fc100": [60, 20, 20]}
    for name, expected in sizes.items():
        lists = [split_classes(name, split) for split in SPLITS]
        assert [len(names) for names in lists] == expected
        assert len({name for names in lists for name in names}) == 100


def test_all_layouts_give_the_same_data(name, images, tmp_path):
    on_disk.cifar_folders(images, tmp_path / "folders")
    on_disk.cifar_torchvision(images, tmp_path / "torchvision")
    on_disk.cifar_pickles(images, tmp_path / "listed", STEMS[name], "listed")
    on_disk.cifar_pickles(images, tmp_path / "numbered", STEMS[name], "cifar100")
    on_disk.split_folders(images, tmp_path / "splits" / name.replace("_", "-"))
    on_disk.split_folders(images, tmp_path / "processed" / STEMS[name].lower() / "processed")
    on_disk.cifar_folders(images, tmp_path / "repository" / name)
    datasets = [load(name, root) for root in sorted(tmp_path.iterdir())]
    assert len(datasets) == 7
    assert len({dataset.digest for dataset in datasets}) == 1
    for dataset in datasets:
        assert dataset.input_shape == (3, 32, 32)
        for split in SPLITS:
            part = getattr(dataset, split)
            assert part.class_names == tuple(sorted(images[split]))
            for i, class_name in enumerate(part.class_names):
                found = part.images[part.offsets[i] : part.offsets[i + 1]]
                expected = images[split][class_name]
                assert {x.tobytes() for x in found} == {x.tobytes() for x in expected}


@pytest.mark.parametrize(
    ("labels", "by_content", "expected"),
    [
        ([7, 8, 9], {"can": 7, "rose": 8, "bee": 9}, [8, 9, 7]),
        ([7, 8, 9], {"can": 7, "rose": 8, "": 9}, [7, 8, 9]),
        ([6, 16, 70], {"": 16}, [70, 6, 16]),
        ([0, 1, 2], {"": 2}, [0, 1, 2]),
    ],
)
def test_label_names_of_pickles(labels, by_content, expected):
    """Labels are identified by images, by CIFAR-100's numbers, or by the order of the list."""
    all_classes = sorted(cifar._fingerprints().values())
    named = cifar.name_labels(["rose", "bee", "can"], labels, by_content, all_classes)
    assert [named[name] for name in ("rose", "bee", "can")] == expected


def test_fingerprints_do_not_depend_on_the_order_of_images():
    images = on_disk.some_images("fc100", 32)["train"]["rose"]
    digits = cifar.fingerprint(images)
    assert cifar.fingerprint(images[::-1]) == digits
    assert cifar.fingerprint(images[1:]) != digits


def test_all_classes_have_a_fingerprint():
    known = cifar._fingerprints()
    assert len(known) == 100
    assert set(known.values()) == {n for s in SPLITS for n in split_classes("fc100", s)}


def test_the_error_for_missing_data_lists_the_expected_files_and_the_download(name, tmp_path):
    with pytest.raises(InputError) as caught:
        load(name, tmp_path)
    message = str(caught.value)
    for part in ("cifar100/data", f"{STEMS[name]}_{{train,val,test}}.pickle", "cifar-100-python"):
        assert part in message
    assert str(tmp_path) in message
    assert f"memmeta data download {name}" in message
    assert "\n" not in message


def test_the_error_for_incomplete_data_names_a_missing_file(tmp_path):
    on_disk.cifar_pickles(on_disk.some_images("fc100", 32), tmp_path, "FC100", "listed")
    (tmp_path / "FC100_val.pickle").unlink()
    with pytest.raises(
        InputError, match=r"some of FC100_\{train,val,test\}.pickle, but not .*/FC100_val.pickle"
    ):
        load("fc100", tmp_path)


def test_hidden_files_are_ignored_and_the_extension_may_be_in_capitals(tmp_path):
    images = on_disk.some_images("fc100", 32)
    for root in ("plain", "copied"):
        on_disk.cifar_folders(images, tmp_path / root)
    for path in (tmp_path / "copied" / "cifar100" / "data" / "apple").iterdir():
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
        path.rename(path.with_suffix(".PNG"))
    plain, copied = (load("fc100", tmp_path / root) for root in ("plain", "copied"))
    assert plain.digest == copied.digest


def test_damaged_folders(tmp_path):
    on_disk.cifar_folders(on_disk.some_images("fc100", 32), tmp_path)
    apples = sorted((tmp_path / "cifar100" / "data" / "apple").iterdir())
    Image.new("RGB", (31, 32)).save(apples[0])
    with pytest.raises(InputError, match=r"apple_000.png: expected 32x32 pixels, .* 31x32"):
        load("fc100", tmp_path)
    apples[0].write_bytes(apples[1].read_bytes()[:100])
    with pytest.raises(InputError, match=r"apple_000.png: not a PNG"):
        load("fc100", tmp_path)
    for path in apples:
        path.unlink()
    with pytest.raises(InputError, match=r"data/apple: expected PNG or JPEG images of the class"):
        load("fc100", tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("labels"), "labels is missing"),
        (lambda c: c.update(data=c["data"].astype(np.float32)), r"expected a uint8 array \[n, 32"),
        (lambda c: c.update(data=c["data"][:, :16]), r"got uint8 \[\d+, 16, 32, 3\]"),
        (lambda c: c.update(data=c["data"].tolist()), "got a list"),
        (lambda c: c["labels"].pop(), r"labels for \d+ images"),
        (lambda c: c.update(labels=["a"] * len(c["labels"])), "expected a list of integers"),
        (lambda c: c.update(labels=[2**80] * len(c["labels"])), "expected a list of integers"),
        (lambda c: c.update(labels=[0] * len(c["labels"])), "expected 60 labels, .* 1$"),
    ],
)
def test_wrong_pickles(tmp_path, change, message):
    on_disk.cifar_pickles(on_disk.some_images("fc100", 32), tmp_path, "FC100", "listed")
    path = tmp_path / "FC100_train.pickle"
    content = pickle.loads(path.read_bytes())
    change(content)
    on_disk.dump(content, path)
    with pytest.raises(InputError, match=message) as caught:
        load("fc100", tmp_path)
    assert str(path) in str(caught.value)


@pytest.mark.usefixtures("no_network")
def test_a_failed_download_is_reported(tmp_path):
    with pytest.raises(InputError, match=r"CIFAR100 could not be downloaded from https://"):
        download("cifar_fs", tmp_path)


def test_other_data_sets_cannot_be_downloaded(tmp_path):
    with pytest.raises(InputError, match="glyphs: cannot be downloaded"):
        download("glyphs", tmp_path)
    with pytest.raises(InputError, match="choose from glyphs, cifar_fs"):
        load("cifar", tmp_path)
