"""Runs with a frozen backbone: features are computed once, and results are those of images."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from memmeta import data, fit
from memmeta.config import LearnerConfig, RunConfig
from memmeta.errors import InputError
from memmeta.memory.prediction import predict_peak_memory, predict_trial_memory
from memmeta.networks import frozen
from memmeta.run import load
from memmeta.training import MetaTrainer, Tasks
from tests.memmeta.networks.nets import HERE

NETWORK = f"{HERE}:convolutional"


def make_run(**learner):
    fields = {"backbone": NETWORK, "train_last": 0, "task_batch": 2, "inner_steps": 3}
    return RunConfig(
        data={"name": "glyphs", "ways": 3, "shots": 2, "queries": 2, "eval_queries": 4},
        learner=LearnerConfig(**fields | learner),
        training={"iterations": 4, "evaluations": 2, "val_tasks": 5, "test_tasks": 5},
    )


@pytest.fixture
def glyphs(data_root, tmp_path):
    """The glyphs in a cache of its own, where features are kept."""
    shutil.copytree(data_root / "cache" / "glyphs", tmp_path / "cache" / "glyphs")
    return data.load("glyphs", tmp_path)


@pytest.fixture
def passes(monkeypatch):
    """Counts the images that pass through frozen backbones to become features."""
    counts = []
    compute = frozen.FrozenBackbone.features

    def counted(self, images):
        counts.append(len(images))
        return compute(self, images)

    monkeypatch.setattr(frozen.FrozenBackbone, "features", counted)
    return counts


def folder(dataset):
    return Path(dataset.train.images.filename).parent.with_name("glyphs.features")


def kept(dataset):
    return sorted(folder(dataset).glob("*/*.npy"))


@pytest.mark.parametrize("algorithm", ["memory_reduced", "itd_bio", "anil"])
@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_results_equal_those_of_passing_images_at_every_step(glyphs, algorithm, head):
    run = make_run(algorithm=algorithm, head=head)
    trainer, reference = (MetaTrainer(run, glyphs, "cpu") for _ in range(2))
    # Without this, the reference would compute features once as well.
    reference.__dict__["tasks"] = Tasks(glyphs, reference.model)
    while not trainer.done:
        report, expected = trainer.train_to_evaluation(), reference.train_to_evaluation()
        assert report.val.value == pytest.approx(expected.val.value, abs=1e-6)
        assert report.diagnostics == pytest.approx(expected.diagnostics, rel=1e-4)
    assert trainer.learns == (algorithm == "anil")


def test_features_are_computed_once_for_all_runs_of_a_network(glyphs, passes):
    first = fit.train_run(make_run(), glyphs, progress=False)
    assert sum(passes) == len(glyphs.val.images)  # nothing is trained
    again = fit.train_run(make_run(), glyphs, progress=False)
    other_head = fit.train_run(make_run(inner_steps=0), glyphs, progress=False)
    assert sum(passes) == len(glyphs.val.images)
    assert again.reports[0].val == first.reports[0].val != other_head.reports[0].val
    first.evaluate("test")
    assert sum(passes) == len(glyphs.val.images) + len(glyphs.test.images)
    assert len(kept(glyphs)) == 2


def test_another_network_has_other_features(glyphs, passes):
    for changes in ({}, {"backbone_args": {"width": 5}}, {"input_size": 30}):
        fit.train_run(make_run(**changes), glyphs, progress=False)
    other_weights = make_run().model_copy(update={"seed": 1})
    fit.train_run(other_weights, glyphs, progress=False)
    assert sum(passes) == 4 * len(glyphs.val.images)


def test_a_damaged_file_of_features_is_replaced(glyphs, passes):
    first = fit.train_run(make_run(), glyphs, progress=False)
    (path,) = kept(glyphs)
    path.write_bytes(path.read_bytes()[:1000])
    again = fit.train_run(make_run(), glyphs, progress=False)
    assert again.reports[0].val == first.reports[0].val
    assert sum(passes) == 2 * len(glyphs.val.images)


def test_images_in_memory_have_features_in_memory(dataset, passes):
    trained = fit.train_run(make_run(), dataset, progress=False)
    assert trained.reports[0].val.tasks == 5
    assert sum(passes) == len(dataset.val.images)


def test_a_folder_that_cannot_be_written_is_named(glyphs):
    folder(glyphs).write_text("a file")
    with pytest.raises(InputError, match=r"glyphs\.features.*cannot be written"):
        fit.train_run(make_run(), glyphs, progress=False)


def test_a_run_that_learns_nothing_is_one_evaluation_and_says_so(glyphs, tmp_path):
    run = fit.train_run(make_run(), glyphs, progress=False)
    assert [report.iteration for report in run.reports] == [4]
    assert "nothing was learned" in run.note
    run.save(tmp_path / "model.pt")
    loaded = load(tmp_path / "model.pt", data=glyphs, device="cpu", trust_code=True)
    assert loaded.evaluate("val") == run.reports[0].val
    classifier = loaded.adapt(np.array(glyphs.test.images[[0, 1, 30, 31]]), [0, 0, 1, 1])
    assert len(classifier.predict(np.array(glyphs.test.images[:8]))) == 8


@pytest.mark.parametrize("learner", [{}, {"algorithm": "anil"}, {"chunk": 12}])
def test_the_memory_is_predicted_to_the_byte(dataset, learner):
    run = make_run(**learner)
    trainer = MetaTrainer(run, dataset, "cpu")
    while not trainer.done:
        trainer.train_to_evaluation()
    assert predict_peak_memory(run, dataset.input_shape) == trainer.peak_memory
    memory = predict_trial_memory(run, dataset.input_shape)
    assert memory.step == trainer.peak_memory <= memory.whole


def test_rotated_classes_pass_through_the_network_at_every_step(glyphs, passes):
    run = make_run()
    run = run.model_copy(update={"data": run.data.model_copy(update={"rotations": True})})
    assert fit.train_run(run, glyphs, progress=False).reports
    assert passes == []
