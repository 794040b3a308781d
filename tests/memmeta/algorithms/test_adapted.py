"""Prediction after adaptation, against evaluation."""

import pytest
import torch

from memmeta.algorithms.adapted import Adapted, groups
from memmeta.algorithms.inner_loop import predict
from memmeta.config import LearnerConfig
from memmeta.networks.models import build_model, with_outputs

MANY = 1000


def a_model(dataset, **settings):
    torch.manual_seed(0)
    learner = LearnerConfig(filters=4, inner_steps=3, **settings)
    model = build_model(learner, dataset.input_shape, 3, dataset.to_input)
    return model, learner


def adapted(model, task, learner, at_once=MANY):
    return Adapted(model, task.support[0], task.support_labels[0], learner, at_once)


@pytest.fixture
def task(dataset, run):
    return dataset.episodes("test", run.data.evaluation_shape, seed=0, indices=[5])


SETTINGS = [
    {"algorithm": algorithm, "norm": norm, "head": head}
    for algorithm in ("memory_reduced", "anil", "maml")
    for norm in ("batch", "group")
    for head in ("linear", "mlp", "last_block")
    if not (algorithm == "maml" and head == "last_block")
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: "-".join(s.values()))
def test_scores_equal_those_of_evaluation_to_the_last_bit(dataset, task, settings):
    model, learner = a_model(dataset, **settings)
    expected = predict(model, task, learner)[0]
    assert torch.equal(adapted(model, task, learner).scores(task.query[0]), expected)


@pytest.mark.parametrize("chunk", [1, 4, 7, 18])
def test_chunks_equal_those_of_evaluation(dataset, task, chunk):
    model, learner = a_model(dataset, norm="group")
    learner = learner.model_copy(update={"chunk": chunk})
    expected = predict(model, task, learner)[0]
    assert torch.equal(adapted(model, task, learner).scores(task.query[0]), expected)


def test_one_adaptation_predicts_many_sets(dataset, run, task):
    model, learner = a_model(dataset, norm="group")
    once = adapted(model, task, learner)
    later = dataset.episodes("test", run.data.evaluation_shape, seed=0, indices=[6]).query[0]
    for query in (task.query[0], later, task.query[0]):
        assert torch.equal(once.scores(query), adapted(model, task, learner).scores(query))


@pytest.mark.parametrize("at_once", [1, 5, 12, 13])
def test_without_batchnorm_the_size_of_groups_does_not_matter(dataset, task, at_once):
    model, learner = a_model(dataset, norm="group")
    assert not adapted(model, task, learner).mixes_examples
    whole = adapted(model, task, learner).scores(task.query[0])
    parts = adapted(model, task, learner, at_once).scores(task.query[0])
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("algorithm", ["memory_reduced", "maml"])
def test_with_batchnorm_each_group_is_normalised_on_its_own(dataset, task, algorithm):
    model, learner = a_model(dataset, algorithm=algorithm)
    query = task.query[0]
    in_groups = adapted(model, task, learner, at_once=5)
    assert in_groups.mixes_examples
    whole = adapted(model, task, learner)
    scores = in_groups.scores(query)
    for group in (slice(0, None, 3), slice(1, None, 3), slice(2, None, 3)):
        assert torch.equal(scores[group], whole.scores(query[group]))
    assert not torch.allclose(scores, whole.scores(query))


def test_the_model_is_not_modified(dataset, task):
    model, learner = a_model(dataset, algorithm="anil")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    adapted(model, task, learner).scores(task.query[0])
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_another_number_of_classes(dataset, run):
    model, learner = a_model(dataset)
    shape = run.data.evaluation_shape._replace(ways=6)
    task = dataset.episodes("test", shape, seed=0, indices=[0])
    six = with_outputs(model, 6)
    assert torch.equal(
        adapted(six, task, learner).scores(task.query[0]), predict(six, task, learner)[0]
    )


@pytest.mark.parametrize(("count", "most"), [(0, 3), (1, 3), (3, 3), (4, 3), (100, 7), (5, 1)])
def test_groups_contain_everything_once_and_are_about_equal(count, most):
    items = [*range(count)]
    parts = [items[group] for group in groups(count, most)]
    assert sorted(item for part in parts for item in part) == items
    sizes = {*map(len, parts)}
    assert all(0 < size <= most for size in sizes)
    assert not sizes or max(sizes) - min(sizes) <= 1
