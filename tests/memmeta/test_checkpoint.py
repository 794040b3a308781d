"""Checkpoints that are damaged, of another run, of other data, or of an older version."""

import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memmeta import checkpoint
from memmeta.data.sets.sinusoid import Sinusoid
from memmeta.errors import InputError
from memmeta.training import MetaTrainer
from tests import ROOT

V1 = ROOT / "tests" / "records/v1/sweep/old-600steps-seed0/checkpoints"


@pytest.fixture
def saved(run, dataset, tmp_path):
    """A checkpoint after two of six steps, and its trainer."""
    trainer, path = MetaTrainer(run, dataset, "cpu"), tmp_path / "trainer.pt"
    trainer.step()
    trainer.step()
    checkpoint.save(path, trainer)
    return path, trainer


@pytest.mark.parametrize(
    "content", [b"", b"not a checkpoint", b"PK\x03\x04broken", b"\x80\x02.", b"\x80\x02K\x01b."]
)
def test_damaged_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.pt"):
        checkpoint.load(path)


def test_checkpoint_that_asks_for_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "canary"), "w"))

    torch.save({"config": Evil(), "trainer": {}}, tmp_path / "evil.pt")
    with pytest.raises(InputError, match=r"evil\.pt"):
        checkpoint.load(tmp_path / "evil.pt")
    assert not (tmp_path / "canary").exists()


def test_checkpoint_of_other_contents_is_refused(tmp_path):
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(InputError, match=r"list\.pt"):
        checkpoint.load(tmp_path / "list.pt")


def same(one, other) -> bool:
    """Whether two states are equal to the last bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_found_or_changes_nothing(saved, place, bit):
    path, _ = saved
    whole, before = path.read_bytes(), checkpoint.load(path)
    damaged = bytearray(whole)
    damaged[int(place * len(whole))] ^= 1 << bit
    path.write_bytes(damaged)
    try:
        after = checkpoint.load(path)
    except InputError:
        pass
    else:
        assert after.config == before.config
        assert same(after.state, before.state)
    finally:
        path.write_bytes(whole)


def test_a_flipped_bit_in_the_directory_of_the_file_is_found(saved):
    """PyTorch takes a part with the attribute of a folder for an empty one."""
    path, _ = saved
    whole = path.read_bytes()
    entries = [i for i in range(len(whole)) if whole.startswith(b"PK\x01\x02", i)]
    assert entries
    for entry in entries:
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[entry + 38] ^= 1 << bit
            path.write_bytes(damaged)
            with pytest.raises(checkpoint.DamagedError):
                checkpoint.load(path)


@pytest.mark.parametrize(
    "damage",
    [
        {"config": None},
        {"config": {"learner": {"later_field": 1}}},
        {"version": "x"},
        {"trainer": None},
    ],
)
def test_what_no_version_writes_is_damaged(saved, run, dataset, damage):
    path, _ = saved
    checkpoint.write(path, torch.load(path) | damage)
    with pytest.raises(checkpoint.DamagedError, match=r"trainer\.pt"):
        checkpoint.resume(MetaTrainer(run, dataset, "cpu"), path)


@pytest.mark.parametrize("iteration", [-1, 7])
def test_a_state_beyond_the_budget_is_damaged(saved, run, dataset, iteration):
    path, _ = saved
    content = torch.load(path)
    content["trainer"]["iteration"] = iteration
    checkpoint.write(path, content)
    with pytest.raises(checkpoint.DamagedError, match=f"step {iteration}"):
        checkpoint.resume(MetaTrainer(run, dataset, "cpu"), path)


def test_an_optimiser_of_other_shapes_is_damaged(saved, run, dataset):
    path, _ = saved
    content = torch.load(path)
    content["trainer"]["optimizer"]["state"][0]["exp_avg"] = torch.zeros(3)
    checkpoint.write(path, content)
    with pytest.raises(checkpoint.DamagedError, match="the state of the optimiser"):
        checkpoint.resume(MetaTrainer(run, dataset, "cpu"), path)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_damaged(saved, share):
    path, _ = saved
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(checkpoint.DamagedError, match=r"trainer\.pt"):
        checkpoint.load(path)
    path.write_bytes(whole)


def test_a_compressed_file_is_refused_before_it_fills_the_memory(saved, tmp_path):
    path, _ = saved
    with (
        zipfile.ZipFile(path) as plain,
        zipfile.ZipFile(tmp_path / "small.pt", "w", zipfile.ZIP_DEFLATED) as small,
    ):
        for part in plain.infolist():
            small.writestr(part.filename, plain.read(part))
    with pytest.raises(checkpoint.DamagedError):
        checkpoint.load(tmp_path / "small.pt")


def test_a_folder_in_its_place_is_damaged_and_can_be_set_aside(tmp_path):
    path = tmp_path / "trainer.pt"
    for number in (1, 2):
        path.mkdir()
        with pytest.raises(checkpoint.DamagedError, match="a folder"):
            checkpoint.load(path)
        assert checkpoint.set_aside(path) == tmp_path / f"trainer.pt.damaged-{number}"
    assert not path.exists()


def test_the_checkpoint_of_another_run_is_refused(saved, run, dataset):
    path, trainer = saved
    other = MetaTrainer(run.model_copy(update={"seed": 4}), dataset, "cpu")
    with pytest.raises(checkpoint.OtherRunError, match="another run"):
        checkpoint.resume(other, path)
    again = MetaTrainer(run, dataset, "cpu")
    checkpoint.resume(again, path)
    assert again.step() == trainer.step()


def test_the_first_differences_from_another_run_are_named(saved, run, dataset):
    changes = {"ridge": 0.25, "inner_lr": 1 / 3, "cg_steps": 2, "inner_steps": 1}
    other = run.model_copy(update={"learner": run.learner.model_copy(update=changes)})
    said = (
        f"learner.cg_steps {run.learner.cg_steps}, here 2; "
        f"learner.inner_lr {run.learner.inner_lr:.3g}, here 0.333; "
        f"learner.inner_steps {run.learner.inner_steps}, here 1; and 1 more"
    )
    with pytest.raises(checkpoint.OtherRunError) as error:
        checkpoint.resume(MetaTrainer(other, dataset, "cpu"), saved[0])
    assert said in error.value.message
    assert not isinstance(error.value, checkpoint.DamagedError)


def test_a_run_does_not_continue_on_other_data(saved, run, dataset):
    path, _ = saved
    other = type(dataset)(**vars(dataset) | {"digest": "another"})
    with pytest.raises(InputError, match=r"other data.*digest none.*another") as error:
        checkpoint.resume(MetaTrainer(run, other, "cpu"), path)
    assert not isinstance(error.value, checkpoint.DamagedError)


def test_a_later_version_is_named(saved):
    path, _ = saved
    content = torch.load(path)
    checkpoint.write(path, content | {"version": 99})
    with pytest.raises(InputError, match="later version of memmeta") as error:
        checkpoint.load(path)
    assert not isinstance(error.value, checkpoint.DamagedError)


@pytest.mark.parametrize(("key", "steps"), [("dbf15bfd3628", 600), ("03766bdf2a73", 300)])
def test_a_checkpoint_of_version_1_continues(tmp_path, key, steps):
    path = Path(shutil.copy(V1 / key / "trainer.pt", tmp_path))
    config = checkpoint.load(path).config
    assert config.key == key
    trainer = MetaTrainer(config, Sinusoid(), "cpu")
    checkpoint.resume(trainer, path)
    assert trainer.iteration == steps
    assert len(trainer.reports) == steps / 150
    if not trainer.done:
        assert trainer.train_to_evaluation().iteration == 450
