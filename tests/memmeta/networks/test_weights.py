"""Weights from files: what fits is loaded, what does not is refused in one line."""

import zipfile

import pytest
import torch
from safetensors import torch as safetensors
from torch import nn

from memmeta.config import LearnerConfig, RunConfig
from memmeta.errors import InputError
from memmeta.networks import weights
from memmeta.networks.own import build
from memmeta.networks.timm_models import import_timm
from memmeta.settings.weights import file_and_digest, pinned
from tests.memmeta.networks.nets import HERE

timm = import_timm()

IMAGES = (3, 20, 20)


@pytest.fixture
def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def save(state, path):
    if path.suffix == ".safetensors":
        safetensors.save_file(state, path)
    else:
        torch.save(state, path)
    return pinned(str(path))


@pytest.mark.parametrize("name", ["net.safetensors", "net.pt", "net.pth"])
@pytest.mark.parametrize("half", [False, True])
def test_weights_are_loaded(network, tmp_path, name, half):
    state = {k: torch.randn(v.shape) if v.dim() else v for k, v in network.state_dict().items()}
    stored = {k: v.half() if half and v.is_floating_point() else v for k, v in state.items()}
    weights.load(network, save(stored, tmp_path / name))
    for key, value in network.state_dict().items():
        torch.testing.assert_close(value, state[key], rtol=1e-3, atol=1e-3)
        assert value.dtype == state[key].dtype


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_the_state_dict_may_be_inside_a_checkpoint(network, tmp_path, key):
    state = {k: v + 1 for k, v in network.state_dict().items()}
    weights.load(network, save({key: state, "epoch": 3}, tmp_path / "net.pt"))
    assert torch.equal(network[0].weight, state["0.weight"])


def test_the_classifier_may_be_there_or_not(network, tmp_path):
    state = network.state_dict() | {"fc.weight": torch.ones(2, 2)}
    weights.load(network, save(state, tmp_path / "net.safetensors"))


def test_a_timm_model_with_its_classifier(tmp_path):
    torch.manual_seed(5)
    model = timm.create_model("test_resnet")
    place = save(model.state_dict(), tmp_path / "net.safetensors")
    backbone = build(LearnerConfig(backbone="timm/test_resnet", weights=place), IMAGES)
    for name, value in backbone.network.state_dict().items():
        assert torch.equal(value, model.state_dict()[name])


def test_position_embeddings_follow_the_input_size(tmp_path):
    model = timm.create_model("test_vit", num_classes=0)
    place = save(model.state_dict(), tmp_path / "vit.safetensors")
    learner = LearnerConfig(backbone="timm/test_vit", weights=place, input_size=80)
    backbone = build(learner, IMAGES)
    model.set_input_size((80, 80))
    images = torch.randn(2, 3, 80, 80)
    torch.testing.assert_close(backbone(images), model.eval()(images))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {k: v for k, v in s.items() if not k.startswith("0.")},
         "lacks 0.weight and 1 more"),
        (lambda s: s | {"2.weight": torch.ones(1)}, "has 2.weight, which the network lacks"),
        (lambda s: s | {"0.bias": torch.ones(9)}, r"0.bias has the shape \[9\].*\[4\]"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_refused_by_name(network, tmp_path, change, message):
    before = network[0].weight.clone()
    place = save(change(network.state_dict()), tmp_path / "net.safetensors")
    with pytest.raises(InputError, match=message) as refused:
        weights.load(network, place)
    assert "\n" not in str(refused.value)
    assert torch.equal(network[0].weight, before)


class Evil:
    def __reduce__(self):
        return print, ("this code ran",)


def test_files_that_are_no_weights_are_refused(network, tmp_path, capsys):
    evil, noise = tmp_path / "evil.pt", tmp_path / "noise.safetensors"
    legacy, packed = tmp_path / "legacy.pth", tmp_path / "packed.pt"
    torch.save({"0.weight": Evil()}, evil)
    noise.write_bytes(b"\xff" * 100)
    torch.save(network.state_dict(), legacy, _use_new_zipfile_serialization=False)
    torch.save(network.state_dict(), tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as plain,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as deflated,
    ):
        for name in plain.namelist():
            deflated.writestr(name, plain.read(name))
    for path in (evil, noise, legacy, packed):
        with pytest.raises(InputError, match=path.name):
            weights.load(network, pinned(str(path)))
    assert "this code ran" not in capsys.readouterr().out


def test_a_changed_or_missing_file_is_noticed(network, tmp_path):
    path = tmp_path / "net.pt"
    place = save(network.state_dict(), path)
    torch.save({k: v + 1 for k, v in network.state_dict().items()}, path)
    with pytest.raises(InputError, match=r"net.pt has the SHA-256 .* the file was changed"):
        weights.load(network, place)
    path.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        weights.load(network, place)


def test_configs_record_the_content_and_not_the_place(network, tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    places = [save(network.state_dict(), tmp_path / name) for name in ("a.pt", "other/a.pt")]
    changed = save({k: v + 1 for k, v in network.state_dict().items()}, tmp_path / "c.pt")

    def run(place):
        learner = LearnerConfig(backbone=f"{HERE}:convolutional", weights=place)
        return RunConfig(learner=learner, training={"iterations": 1})

    assert run(places[0]).key == run(places[1]).key != run(changed).key
    monkeypatch.chdir(tmp_path)
    assert run("a.pt") == run(places[0])
    # A record is read although the file is gone.
    (tmp_path / "a.pt").unlink()
    record = run(places[0]).model_dump()
    assert RunConfig.model_validate(record) == run(places[0])
    assert file_and_digest(record["learner"]["weights"])[0] == tmp_path / "a.pt"
