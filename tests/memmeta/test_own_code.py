"""Code of users: where it is found, what its data sets are called, and which files may name it."""

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from memmeta import checkpoint, data
from memmeta.__main__ import main
from memmeta.config import RunConfig
from memmeta.data.sources import cache_name
from memmeta.errors import InputError
from memmeta.exported import read_run
from memmeta.registry import UntrustedCodeError
from memmeta.run import load
from memmeta.training import MetaTrainer
from tests.memmeta.test_registry import HERE as OBJECTS
from tests.memmeta.test_registry import LINES

MODULE = """
from pathlib import Path
from memmeta.algorithms.memory_reduced import backward

Path({marker!r}).touch()
"""


@pytest.fixture
def module(tmp_path, tmp_path_factory, monkeypatch, request):
    """A module that nobody has imported, and the file that it creates when it is imported.

    It is in a folder of its own, which is current.
    """
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder, marker = tmp_path_factory.mktemp("own"), tmp_path / "imported"
    name = f"own_{abs(hash(request.node.name))}"
    (folder / f"{name}.py").write_text(MODULE.format(marker=str(marker)))
    monkeypatch.chdir(folder)
    return name, marker


def own_algorithm(run: RunConfig, module: str) -> RunConfig:
    """The config with an algorithm in a module, which is not imported yet."""
    learner = run.learner.model_copy(update={"algorithm": f"{module}:backward"})
    return run.model_copy(update={"learner": learner})


@pytest.fixture
def model(run, dataset, module, tmp_path):
    """A checkpoint whose config names the module."""
    trainer = MetaTrainer(run, dataset, "cpu")
    trainer.train_to_evaluation()
    saved = checkpoint.snapshot(trainer)
    path = tmp_path / "model.pt"
    checkpoint.save_snapshot(path, saved._replace(config=own_algorithm(run, module[0])))
    return path


def test_a_model_is_refused_if_it_names_code_and_that_code_does_not_run(model, module):
    name, marker = module
    with pytest.raises(InputError, match=rf"model\.pt: names code, {name}:backward") as refused:
        load(model)
    assert "--trust-code" in refused.value.message
    assert not marker.exists()
    assert load(model, trust_code=True).config.learner.algorithm == f"{name}:backward"
    assert marker.exists()


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_commands_on_models_take_trust_code(command, model, module, tmp_path, data_root):
    folders = ["--support", tmp_path, "--query", tmp_path, "--out", tmp_path / "out.csv"]
    rest = ["--data-root", data_root, "--tasks", 2] if command == "evaluate" else folders
    words = [command, model, "--device", "cpu", "--threads", 1, *rest]
    refused = CliRunner().invoke(main, [*map(str, words)])
    assert (refused.exit_code, refused.output.count("\n")) == (2, 1)
    assert "names code" in refused.output
    assert not module[1].exists()
    trusted = CliRunner().invoke(main, [*map(str, words), "--trust-code"])
    assert "names code" not in trusted.output
    assert module[1].exists()


def test_a_run_continues_with_its_own_code_and_with_no_other(model, module, run, dataset):
    name, marker = module
    with pytest.raises(checkpoint.OtherRunError, match="of another run"):
        checkpoint.resume(MetaTrainer(run, dataset, "cpu"), model)
    assert not marker.exists()
    trainer = MetaTrainer(own_algorithm(run, name), dataset, "cpu")
    checkpoint.resume(trainer, model)
    assert trainer.iteration > 0


@pytest.mark.parametrize("field", ["data.name", "learner.algorithm", "learner.backbone",
                                   "learner.head"])  # fmt: skip
def test_no_field_of_a_config_in_a_model_is_imported(field, run, dataset, module, tmp_path):
    saved = checkpoint.snapshot(MetaTrainer(run, dataset, "cpu"))
    section, name = field.split(".")
    part = getattr(run, section).model_copy(update={name: f"{module[0]}:backward"})
    config = run.model_copy(update={section: part})
    assert config.import_paths == [f"{module[0]}:backward"]
    checkpoint.save_snapshot(tmp_path / "other.pt", saved._replace(config=config))
    with pytest.raises(UntrustedCodeError):
        checkpoint.load(tmp_path / "other.pt")
    assert not module[1].exists()


def test_a_config_file_names_modules_beside_it_after_the_installed_ones(
    module, tmp_path, monkeypatch
):
    folder = Path.cwd()
    monkeypatch.chdir(tmp_path)
    (folder / "mine.yaml").write_text(f"learner: {{algorithm: '{module[0]}:backward'}}")
    assert read_run(folder / "mine.yaml").config.learner.algorithm == f"{module[0]}:backward"
    assert sys.path.index(str(folder)) > max(
        place for place, path in enumerate(sys.path) if "site-packages" in path
    )


def test_a_data_set_is_called_as_in_the_config(tmp_path):
    images, points = f"{OBJECTS}:STRIPES", f"{OBJECTS}:LINES"
    assert data.load(images, tmp_path).name == images
    lines = data.load(points, tmp_path)
    assert (lines.name, lines.digest) == (points, LINES.digest)


def test_two_modules_of_the_same_name_do_not_share_a_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    names = []
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same_name.py").write_text(f"# {folder}\nBIRDS = None")
        monkeypatch.syspath_prepend(tmp_path / folder)
        monkeypatch.delitem(sys.modules, "same_name", raising=False)
        names.append(cache_name("same_name:BIRDS"))
    assert all(name.startswith("same_name.BIRDS-") for name in names)
    assert names[0] != names[1]
    assert cache_name("glyphs") == "glyphs"
