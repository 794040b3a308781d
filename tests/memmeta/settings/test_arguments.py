"""Arguments of the Python API that are not accepted: one line that names the argument."""

from pathlib import Path

import pytest

import memmeta as mm
import sweeps
from memmeta.config import LearnerConfig
from memmeta.data.sets.sinusoid import SINUSOID
from memmeta.errors import InputError
from memmeta.settings.arguments import AnyPath, checked

LEARNER = LearnerConfig(backbone="mlp")


@checked
def called(path: AnyPath, top: int | None = None, *, note="", other: "Unknown" = 0):  # noqa: F821
    return path, top, note, other


def test_arguments_are_passed_on_as_the_annotations_say():
    assert called("a", "3", note=7) == (Path("a"), 3, 7, 0)
    assert called(top=None, path=Path("b"), other="x") == (Path("b"), None, "", "x")


def test_calls_that_do_not_fit_the_signature_are_errors_of_python():
    for arguments in ({}, {"path": "a", "more": 1}):
        with pytest.raises(TypeError, match="argument"):
            called(**arguments)


def test_errors_within_the_function_are_not_changed():
    @checked
    def fails(top: int) -> None:
        LearnerConfig(filters=top)

    with pytest.raises(ValueError, match="LearnerConfig"):
        fails(0)


@pytest.fixture(scope="module")
def run():
    budget = {"iterations": 1, "evaluations": 1, "val_tasks": 2}
    return mm.train(LEARNER, SINUSOID, **budget, device="cpu", progress=False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"data": "sinusoid"}, "data: .*load_dataset.*got 'sinusoid'"),
        ({"data": None}, "data: .*load_dataset"),
        ({"learner": "mlp"}, "learner: .*LearnerConfig, got 'mlp'"),
        ({"learner": {"filtres": 3}}, r"unknown key learner.filtres \(did you mean filters"),
        ({"progress": "yes"}, "progress: .*True, False.*got 'yes'"),
        ({"checkpoint": 5}, "checkpoint: .*path.*got 5"),
        ({"checkpoint": ""}, "checkpoint: .*path.*got ''"),
        ({"device": [1]}, r"device \[1\]: "),
        ({"tasks": "many"}, "tasks: .*integer.*got 'many'"),
    ],
)
def test_training_is_refused(arguments, said):
    with pytest.raises(InputError, match=said) as error:
        mm.train(**{"learner": LEARNER, "data": SINUSOID} | arguments)
    assert "\n" not in error.value.message


PATHS = [5, None, b"x", "", "a\0b", "x" * 256, "\ud800", Path(f"{'y' * 200}/" * 30)]


@pytest.mark.parametrize("path", PATHS)
def test_paths_are_refused(run, path):
    load = {"data_root": "data", "storage": "runs"}
    study = sweeps.Study(name="s", data={"name": "glyphs"}, training={"tasks": 5})
    for function, arguments in (
        (run.save, {"path": path}),
        (mm.load, {"path": path}),
        (mm.load_dataset, {"name": "glyphs", "root": path}),
        (sweeps.load, {"name": "s", "storage": path}),
        (study.run, load | {"storage": path}),
        (study.run, load | {"data_root": path}),
    ):
        with pytest.raises(InputError, match=f"^{function.__name__}: .*: .*path") as error:
            function(**arguments)
        assert "\n" not in error.value.message


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"data": "sinusoid"}, "data: .*load_dataset"),
        ({"data": []}, "data: .*load_dataset"),
        ({"split": "train"}, "split: .*'val' or 'test', got 'train'"),
        ({"split": [1]}, "split: .*'val' or 'test'"),
        ({"tasks": 1}, "tasks: .*2, got 1"),
        ({"tasks": 2.5}, "tasks: .*integer"),
        ({"tasks": 10**30}, "tasks: "),
    ],
)
def test_evaluation_is_refused(run, arguments, said):
    with pytest.raises(InputError, match=f"evaluate: {said}"):
        run.evaluate(**arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"progress": "yes"},
        {"trials": "x"},
        {"stage": 5},
        {"fresh": None},
        {"tracking_uri": 5},
        {"memory_budget": [1]},
    ],
)
def test_a_sweep_is_refused(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = sweeps.Study(name="s", data={"name": "glyphs"}, training={"tasks": 5})
    (name,) = arguments
    with pytest.raises(InputError, match=f"{name}: .*got"):
        study.run(**arguments)
    assert not [*tmp_path.iterdir()]
