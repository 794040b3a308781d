"""Runs with own networks, from the config to a classifier."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import memmeta as mm
from memmeta.errors import InputError
from memmeta.networks.timm_models import import_timm
from tests.memmeta.networks.nets import HERE, Reading


def train(learner, dataset, **options):
    return mm.train(
        learner, dataset, ways=3, shots=2, queries=2, eval_queries=4, iterations=4, evaluations=2,
        val_tasks=4, progress=False, **options,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_a_model_of_timm_is_trained_saved_and_used_without_its_file(dataset, tmp_path, name):
    weights = tmp_path / "weights.safetensors"
    torch.manual_seed(4)
    model = import_timm().create_model(name)
    save_file(model.state_dict(), weights)
    if name == "test_vit":
        model.set_input_size((32, 32))  # resamples the position embeddings
    learner = mm.LearnerConfig(
        backbone=f"timm/{name}", weights=str(weights), train_last=1, input_size=32, task_batch=2
    )
    run = train(learner, dataset)
    run.save(tmp_path / "model.pt")
    weights.unlink()
    loaded = mm.load(tmp_path / "model.pt", data=dataset, device="cpu", trust_code=True)
    assert loaded.evaluate("val", tasks=4) == run.reports[-1].val
    images = np.array(dataset.test.images[[0, 1, 12, 13]])
    expected = run.adapt(images, [0, 0, 1, 1]).predict_proba(dataset.test.images[:20])
    found = loaded.adapt(images, [0, 0, 1, 1]).predict_proba(dataset.test.images[:20])
    np.testing.assert_array_equal(found, expected)
    changed = {
        key.removeprefix("backbone.network.")
        for key, value in run._saved.state["model"].items()
        if key.startswith("backbone") and not torch.equal(value, model.state_dict()[key[17:]])
    }
    last = {"test_vit": ("blocks.5", "norm"), "test_resnet": ("layer4",)}[name]
    assert changed
    assert all(key.startswith(last) for key in changed)


def test_a_function_is_trained_and_found_again_by_its_name(dataset, tmp_path):
    learner = mm.LearnerConfig(backbone=Reading, task_batch=2)
    checkpoint = tmp_path / "run.pt"
    first = train(learner, dataset, checkpoint=checkpoint)
    assert train(learner, dataset, checkpoint=checkpoint).reports == first.reports
    assert mm.load(checkpoint, trust_code=True).config.learner.backbone == f"{HERE}:Reading"
    assert mm.load(checkpoint, trust_code=True).adapt(
        dataset.test.images[[0, 12]], ["a", "b"]
    ).classes == ["a", "b"]


def test_a_run_does_not_continue_with_other_weights(dataset, tmp_path):
    weights, checkpoint = tmp_path / "w.pt", tmp_path / "run.pt"

    def learner(seed):
        torch.manual_seed(seed)
        torch.save(Reading((1, 16, 16)).state_dict(), weights)
        return mm.LearnerConfig(backbone=Reading, weights=str(weights), task_batch=2)

    train(learner(0), dataset, checkpoint=checkpoint)
    with pytest.raises(InputError, match="the checkpoint of another run"):
        train(learner(1), dataset, checkpoint=checkpoint)
